"""A stream between its source and its memory, and several of them under one service."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hermes_edge.errors import BudgetError, QuestionError
from hermes_edge.runtime import Answer, Runtime, SamplingParams, Session
from hermes_edge.service import service as service_module
from hermes_edge.service.questions import DueQuestion, TimedQuestion
from hermes_edge.service.service import Service, summary_of
from hermes_edge.service.stream import Stream, StreamPlan
from hermes_edge.sources import Capture, Source

PARAMS = SamplingParams(max_new_tokens=3)


class Heard:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.answers: list[Answer] = []

    def question(self, stream: Stream, due: DueQuestion) -> None:
        self.log.append(("asked", due.question.text))

    def piece(self, stream: Stream, text: str) -> None:
        if not self.log or self.log[-1][0] != "piece":
            self.log.append(("piece", stream.name))

    def answer(self, stream: Stream, due: DueQuestion, answer: Answer) -> None:
        self.log.append(("answered", due.question.text))
        self.answers.append(answer)


def _session(runtime: Runtime, **options: Any) -> Session:
    shape = {"budget_tokens": 128, "chunk_frames": 4, "reserve_tokens": 256, "policy": "window"}
    return runtime.session(**{**shape, **options})


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _stream(runtime: Runtime, source: Source, heard: Heard | None = None, **options: Any) -> Stream:
    plan = StreamPlan(name=source.name, params=PARAMS, **options)
    return Stream(
        plan, Capture(source, "block", ring_frames=8), _session(runtime), heard or Heard()
    )


def test_frames_are_fed_and_questions_asked_at_their_times(runtime: Runtime, door: Any) -> None:
    heard = Heard()
    questions = [TimedQuestion(5.0, "Later?"), TimedQuestion(2.0, "What?")]
    stream = _stream(runtime, door, heard, questions=questions)
    stream.start()
    door.put(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    _until(lambda: stream.ended)
    assert [entry for entry in heard.log if entry[0] != "piece"] == [
        ("asked", "What?"),
        ("answered", "What?"),
        ("asked", "Later?"),
        ("answered", "Later?"),
    ]
    assert [answer.video_time_s for answer in heard.answers] == [2.0, 5.0]
    status = stream.status()
    assert (stream.error, stream.unanswered, status.state) == (None, 0, "ended")
    assert status.frames["in"] == 7
    assert status.first_token.count == 2
    assert status.further_token.count == sum(len(a.token_ids) - 1 for a in heard.answers)
    assert stream.session.memory().frames_seen == 6
    stream.close()
    with pytest.raises(QuestionError, match="closed"):
        stream.session.flush()


def test_the_age_is_that_of_the_newest_encoded_frame(runtime: Runtime, door: Any) -> None:
    stream = _stream(runtime, door, to_the_end=True)
    stream.start()
    # Three frames of a chunk of four wait for the fourth.
    door.put(0.0, 1.0, 2.0)
    _until(lambda: stream.status().frames["used"] == 3)
    assert stream.status().age_s is None
    door.put(3.0)
    _until(lambda: stream.status().age_s is not None)
    first = time.monotonic() - (stream.status().age_s or 0.0)
    door.put(4.0)
    _until(lambda: stream.status().frames["used"] == 5)
    assert time.monotonic() - (stream.status().age_s or 0.0) == pytest.approx(first, abs=1e-3)
    stream.ask("Now?")
    assert time.monotonic() - (stream.status().age_s or 0.0) > first + 1e-3
    stream.leave()
    stream.close()


def test_every_sampled_frame_is_accounted_for(runtime: Runtime, door: Any) -> None:
    stream = _stream(runtime, door, questions=[TimedQuestion(2.0, "What?")])
    door.put(*map(float, range(8)))
    stream.start()
    _until(lambda: stream.ended)
    frames = stream.status().frames
    assert frames["used"] == stream.session.memory().frames_seen == 3
    assert frames["sampled"] == frames["used"] + frames["dropped"] > 3
    stream.close()


def test_a_stream_that_goes_to_the_end_outlives_its_questions(runtime: Runtime, door: Any) -> None:
    heard = Heard()
    questions = [TimedQuestion(1.0, "What?"), TimedQuestion(99.0, "Never?")]
    stream = _stream(runtime, door, heard, questions=questions, to_the_end=True)
    stream.start()
    door.put(*map(float, range(7)))
    _until(lambda: stream.session.memory().frames_seen == 7)
    assert stream.ask("Now?").video_time_s >= 4.0
    assert not stream.ended
    stream.leave()
    stream.end()
    # It was told to leave: what was not due is not asked.
    assert [text for what, text in heard.log if what == "asked"] == ["What?"]
    assert (stream.unanswered, stream.status().state) == (1, "ended")


def test_no_frame_waits_longer_than_a_chunk_to_be_encoded(runtime: Runtime, door: Any) -> None:
    stream = _stream(runtime, door, chunk_period_s=0.1)
    stream.start()
    door.put(0.0)
    # One frame of a slice of four: without the limit it would wait for three more.
    _until(lambda: stream.session.timings().frames == 1)
    assert stream.session.waiting_since_s is None
    door.put(1.0, 2.0)
    _until(lambda: stream.session.timings().frames == 3)
    stream.close()


def test_without_that_limit_frames_wait_for_their_slice(runtime: Runtime, door: Any) -> None:
    stream = _stream(runtime, door)
    stream.start()
    door.put(0.0, 1.0)
    _until(lambda: stream.session.memory().frames_seen == 2)
    time.sleep(0.2)
    assert stream.session.timings().frames == 0
    assert stream.session.waiting_since_s is not None
    stream.close()


def test_however_slow_the_model_is_what_it_encodes_is_fresh(
    runtime: Runtime, door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a fifth of the pace of its source, frames without a bound would soon be seconds old."""
    fps, chunk_frames, encoding_s = 50.0, 4, 0.4
    door.fps = fps
    session, ages = _session(runtime, chunk_frames=chunk_frames), list[float]()
    encode = session._feeder.encode_waiting

    def slow() -> None:
        if session.waiting_since_s is not None:
            ages.append(time.monotonic() - session.waiting_since_s)
            time.sleep(encoding_s)
        encode()

    monkeypatch.setattr(session._feeder, "encode_waiting", slow)
    period_s = chunk_frames / fps
    capture = Capture(door, "latest", ring_frames=chunk_frames)
    stream = Stream(StreamPlan("door", chunk_period_s=period_s), capture, session, Heard())
    stream.start()
    began = time.monotonic()
    for frame in range(200):
        door.put(frame / fps)
        time.sleep(max(began + frame / fps - time.monotonic(), 0.0))
    _until(lambda: len(ages) >= 6)
    stream.end()
    # Half a second for a busy machine's threads to be scheduled; unbounded, the last would be 3 s.
    assert max(ages) < period_s + 0.5
    assert stream.status().frames["dropped"] > 100
    session.close()


def test_a_stream_that_goes_on_has_later_times_and_skips_what_was_seen(
    runtime: Runtime, door: Any
) -> None:
    then_s = time.monotonic()
    stream = _stream(runtime, door, goes_on=(100.0, then_s), skips_s=101.5, restored=True)
    assert stream.newest_s == 101.5
    stream.start()
    door.put(0.0, 1.0, 2.5)
    _until(lambda: stream.session.memory().frames_seen == 1)
    assert stream.session.memory().newest_s == pytest.approx(102.5, abs=0.4)
    assert stream.status().restored
    stream.close()


def test_the_wait_for_a_source_has_passed_in_a_stream_that_goes_on(
    runtime: Runtime, door: Any
) -> None:
    """Restored an hour ago, while the camera was away."""
    then_s = time.monotonic() - 3600
    stream = _stream(runtime, door, goes_on=(100.0, then_s), skips_s=90.0, restored=True)
    stream.start()
    door.put(0.0)
    _until(lambda: stream.session.memory().frames_seen == 1)
    assert 3700 <= stream.session.memory().newest_s < 3730
    stream.close()


def test_a_question_to_a_live_stream_does_not_wait_for_a_frame(runtime: Runtime, door: Any) -> None:
    """The camera is away, or shows nothing that is new."""
    heard = Heard()
    stream = _stream(runtime, door, heard, questions=[TimedQuestion(0.3, "What?")])
    stream.start()
    began_s = time.monotonic()
    door.put(0.0)
    _until(lambda: stream.ended)
    assert time.monotonic() - began_s >= 0.3
    assert [answer.video_time_s for answer in heard.answers] == [0.0]
    assert stream.error is None
    stream.close()


def test_a_stream_that_goes_on_is_asked_while_its_source_is_away(
    runtime: Runtime, door: Any
) -> None:
    heard = Heard()
    then_s = time.monotonic() - 3600
    stream = _stream(
        runtime,
        door,
        heard,
        goes_on=(100.0, then_s),
        restored=True,
        questions=[TimedQuestion(3000.0, "What?")],
    )
    stream.session.feed(np.zeros((8, 8, 3), np.uint8), 90.0)
    stream.start()
    _until(lambda: stream.ended)
    assert [answer.video_time_s for answer in heard.answers] == [90.0]
    stream.close()


def test_an_error_ends_the_stream_and_is_kept(runtime: Runtime, door: Any) -> None:
    plan = StreamPlan(name="door")
    session = _session(runtime, policy="full", budget_tokens=64)
    stream = Stream(plan, Capture(door, "block", ring_frames=8), session, Heard())
    stream.start()
    door.put(*map(float, range(9)))
    _until(lambda: stream.ended)
    assert isinstance(stream.error, BudgetError)
    assert stream.status().state == "failed"
    stream.close()


def test_a_question_that_cannot_be_asked_does_not_end_a_live_stream(
    runtime: Runtime, door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    questions = [TimedQuestion(1.0, "long " * 300), TimedQuestion(3.0, "What?")]
    stream = _stream(runtime, door, heard, questions=questions)
    with caplog.at_level(logging.WARNING, "hermes_edge"):
        stream.start()
        door.put(*map(float, range(6)))
        _until(lambda: stream.ended)
    assert [text for what, text in heard.log if what == "answered"] == ["What?"]
    assert "door: the question does not fit the reserve" in caplog.text
    assert isinstance(stream.error, QuestionError)
    assert stream.told
    assert stream.unanswered == 1
    stream.close()


def _service(runtime: Runtime, streams: list[Stream]) -> Service:
    service = Service(runtime, streams, print, silent_after_s=60, engine_timeout_s=60)
    service.start()
    return service


def test_the_service_ends_when_all_streams_have(
    runtime: Runtime, door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other = type(door)("yard")
    good = _stream(runtime, door, questions=[TimedQuestion(4.0, "What?")])
    session = _session(runtime, policy="full", budget_tokens=64)
    bad = Stream(StreamPlan(name="yard"), Capture(other, "block", ring_frames=8), session, Heard())
    service = _service(runtime, [good, bad])
    other.put(*map(float, range(9)))
    stop, waited = threading.Event(), threading.Event()

    def wait() -> None:
        service.wait(stop.is_set)
        waited.set()

    with caplog.at_level(logging.INFO, "hermes_edge"):
        threading.Thread(target=wait, daemon=True).start()
        _until(lambda: "yard: the memory is full" in caplog.text)
        assert not waited.is_set()
        service.log_summary()
        door.put(*map(float, range(6)))
        assert waited.wait(30)
    service.stop()
    assert caplog.text.count("yard: the memory is full") == 1
    assert "yard failed: " in caplog.text
    assert [status.state for status in service.statuses()] == ["ended", "failed"]
    told = summary_of(service.statuses()[0])
    assert told.startswith("door ended: 6 in, ")
    assert " rows, TTFT " in told


def test_objects_are_collected_once_a_minute(
    runtime: Runtime, door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "SUMMARY_EVERY_S", 0.1)
    service = _service(runtime, [_stream(runtime, door)])
    stop, began, deadline = threading.Event(), _full_collections(), time.monotonic() + 30

    def look() -> None:
        assert time.monotonic() < deadline
        assert gc.get_freeze_count() > 0
        # One is that before the freeze.
        if _full_collections() >= began + 3:
            stop.set()

    service.wait(stop.is_set, look)
    service.stop()


def _full_collections() -> int:
    return int(gc.get_stats()[2]["collections"])


def test_a_silent_stream_is_shown_as_such(runtime: Runtime, door: Any) -> None:
    stream = _stream(runtime, door)
    service = Service(runtime, [stream], print, silent_after_s=0.05, engine_timeout_s=60)
    assert [status.state for status in service.statuses()] == ["starting"]
    service.start()
    _until(lambda: [status.state for status in service.statuses()] == ["silent"])
    door.put(0.0)
    service.stop()
    assert [status.state for status in service.statuses()] == ["ended"]


def test_stopping_finishes_what_is_in_hand(runtime: Runtime, door: Any) -> None:
    stream = _stream(runtime, door)
    service = _service(runtime, [stream])
    door.put(*map(float, range(4)))
    _until(lambda: stream.session.memory().frames_seen == 4)
    stop = threading.Event()
    stop.set()
    service.wait(stop.is_set)
    service.stop()
    assert stream.ended
    assert stream.session.memory().frames_seen == 4


def test_interleaved_streams_remember_what_separate_ones_do(runtime: Runtime, door: Any) -> None:
    """Bit for bit: keys, values, and answers."""
    names = ("a", "b", "c")

    def frames_of(index: int) -> list[float]:
        return [frame + 0.1 * index for frame in range(14)]

    def outcome(stream: Stream) -> tuple[list[bytes], tuple[int, ...]]:
        answer = stream.session.ask("What?", PARAMS)
        store = stream.session._parts.store
        layers = range(len(store.rows))
        content = [
            bytes(np.ascontiguousarray(stream.session._parts.runner.download(view)).data)
            for layer in layers
            for view in store.committed(layer)
        ]
        return content, answer.token_ids

    def run(indices: list[int]) -> list[tuple[list[bytes], tuple[int, ...]]]:
        sources = [type(door)(names[index]) for index in indices]
        streams = [
            Stream(
                StreamPlan(name=source.name, params=PARAMS),
                Capture(source, "block", ring_frames=8),
                _session(runtime, policy="hermes"),
                Heard(),
            )
            for source in sources
        ]
        service = _service(runtime, streams)
        for frame in range(14):
            for index, source in zip(indices, sources, strict=True):
                source.put(frames_of(index)[frame])
        _until(lambda: all(s.session.memory().frames_seen == 14 for s in streams))
        service.stop()
        return [outcome(stream) for stream in streams]

    together = run([0, 1, 2])
    assert together == [*run([0]), *run([1]), *run([2])]
    assert together[0] != together[1]
