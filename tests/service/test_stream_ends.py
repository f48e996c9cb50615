"""Whatever happens to a stream, it ends, says why once, and keeps nobody waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest

from hermes_edge.errors import BudgetError, QuestionError, StorageError
from hermes_edge.runtime import Answer, Frame, Runtime, SamplingParams
from hermes_edge.runtime.chunks import StageTimes
from hermes_edge.runtime.factory import SessionFactory
from hermes_edge.service.questions import DueQuestion, TimedQuestion
from hermes_edge.service.service import Service
from hermes_edge.service.stream import Stream, StreamPlan
from hermes_edge.sources import Capture, GrabbedFrame, Source
from tests.service.conftest import HandedOut


class Deaf:
    """Listens to nothing."""

    def question(self, stream: Stream, due: DueQuestion) -> None: ...

    def piece(self, stream: Stream, text: str) -> None: ...

    def answer(self, stream: Stream, due: DueQuestion, answer: Answer) -> None: ...


def _stream(
    runtime: Runtime, source: Source, heard: Any = None, policy: str = "window", **options: Any
) -> Stream:
    session = runtime.session(budget_tokens=128, chunk_frames=4, reserve_tokens=256, policy=policy)
    plan = StreamPlan(name=source.name, **options)
    return Stream(plan, Capture(source, "block", ring_frames=8), session, heard or Deaf())


def _service(runtime: Runtime, streams: list[Stream]) -> Service:
    service = Service(runtime, streams, print, silent_after_s=60, engine_timeout_s=60)
    service.start()
    return service


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("error", [SystemExit(1), BrokenPipeError("no reader"), MemoryError()])
@pytest.mark.parametrize("told", ["question", "piece", "answer"])
def test_whatever_a_listener_raises_ends_the_stream(
    runtime: Runtime, door: Any, told: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    listener, params = Deaf(), SamplingParams(max_new_tokens=8)
    setattr(listener, told, fail)
    questions = [TimedQuestion(0.0, "What?")]
    stream = _stream(runtime, door, listener, questions=questions, params=params)
    service = _service(runtime, [stream])
    door.put(0.0, 1.0)
    _until(lambda: stream.ended)
    service.stop()
    assert stream.error is error
    assert stream.status().state == "failed"
    assert stream.session.ask("And now?", params).text


def test_all_streams_that_fail_are_told_of(
    runtime: Runtime, door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(Source):
        fps = ended_early = None
        live = True

        def __init__(self, name: str, error: Exception) -> None:
            self.name, self._error, self.counts = name, error, door.counts

        def grabs(self) -> Generator[GrabbedFrame, None, None]:
            raise self._error
            yield

        def close(self) -> None: ...

    faults = {"yard": ValueError("no picture"), "hall": MemoryError()}
    streams = [_stream(runtime, Faulty(name, error)) for name, error in faults.items()]
    with caplog.at_level(logging.ERROR, "hermes_edge"):
        service = _service(runtime, streams)
        service.wait(lambda: False)
        service.stop()
    assert sorted(record.getMessage() for record in caplog.records) == [
        "hall: MemoryError",
        "yard: no picture",
    ]
    # Nobody foresaw them: where they came from is told, too.
    assert all(record.exc_info for record in caplog.records)
    assert all(stream.told for stream in streams)


@pytest.mark.parametrize("names", [["yard"], ["yard", "hall"]])
def test_a_failure_is_told_by_the_log_or_of_one_stream_alone_by_whoever_waits(
    runtime: Runtime, door: Any, caplog: pytest.LogCaptureFixture, names: list[str]
) -> None:
    """Also where streams fail while they are told to end, behind a question that was told of."""
    go_on = threading.Event()

    class Raising(Deaf):
        def question(self, stream: Stream, due: DueQuestion) -> None:
            go_on.wait(60)
            raise BudgetError(f"{stream.name} is full")

    sources = [type(door)(name) for name in names]
    questions = [TimedQuestion(0.0, "What?")]
    streams = [_stream(runtime, source, Raising(), questions=questions) for source in sources]
    service, stop = _service(runtime, streams), threading.Event()
    for source, stream in zip(sources, streams, strict=True):
        source.put(0.0, 1.0)
        stream.error, stream.told = QuestionError("too long"), True
    stop.set()
    service.wait(stop.is_set)
    assert caplog.messages == []
    go_on.set()
    _until(lambda: all(stream.ended for stream in streams))
    service.stop()
    assert [str(stream.error) for stream in streams] == [f"{name} is full" for name in names]
    several = len(names) > 1
    assert caplog.messages == ([f"{name}: {name} is full" for name in names] if several else [])
    assert [stream.told for stream in streams] == [several] * len(streams)
    assert [record.exc_info for record in caplog.records] == [None] * len(caplog.records)


def test_what_ends_a_source_is_told_though_it_comes_behind_the_wait_for_a_frame(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(HandedOut):
        def grabs(self) -> Generator[GrabbedFrame, None, None]:
            yield from super().grabs()
            raise ValueError("unplugged")

    source = Lost("door")
    stream = _stream(runtime, source)
    capture = stream._capture
    next_frame, waits = capture.next_frame, list[float | None]()

    def lost_behind_the_wait(timeout_s: float | None = None) -> Frame | None:
        waits.append(timeout_s)
        if len(waits) > 1:
            return next_frame(timeout_s)
        source.close()
        _until(lambda: capture.ended)
        return None

    monkeypatch.setattr(capture, "next_frame", lost_behind_the_wait)
    stream.start()
    _until(lambda: stream.ended)
    assert str(stream.error) == "unplugged"
    stream.close()


def test_stages_are_those_since_the_stream_began(runtime: Runtime, door: Any) -> None:
    """A memory that was restored has seen frames that this process has not."""
    earlier = runtime.session(budget_tokens=128, chunk_frames=4, reserve_tokens=256)
    for at in range(5):
        earlier.feed(np.zeros((8, 8, 3), dtype=np.uint8), float(at))
    earlier.flush()
    stream = Stream(StreamPlan(name="door", chunk_period_s=0.01), Capture(door), earlier, Deaf())
    assert stream.status().stages == StageTimes()
    stream.start()
    door.put(5.0)
    _until(lambda: stream.status().stages.frames == 1)
    stream.close()
    stages = stream.status().stages
    assert earlier.timings().frames == 6
    assert stages.encode_ms > 0


def test_time_to_first_token_counts_the_wait_for_the_session(runtime: Runtime, door: Any) -> None:
    stream = _stream(runtime, door, params=SamplingParams(max_new_tokens=2))
    stream.session.feed(np.zeros((8, 8, 3), dtype=np.uint8), 0.0)
    answers: list[Answer] = []
    asker = threading.Thread(target=lambda: answers.append(stream.ask("What?")))
    with stream.session._use:
        asker.start()
        _until(lambda: stream.session._use.is_asked_for)
        time.sleep(0.2)
    asker.join(timeout=60)
    (answer,) = answers
    assert answer.waited_ms >= 200
    assert stream.status().first_token.last_ms >= answer.waited_ms + answer.ttft_ms
    stream.close()


def test_leaving_finishes_the_engine_call_in_flight_and_no_other(
    runtime: Runtime, door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, streams, call = list[str](), list[Stream](), SessionFactory._call

    def observed(factory: SessionFactory, claim: Any, engine: Any, *views: Any) -> None:
        made.append(engine.graph.name)
        for stream in streams if made[-1] == "score" else ():
            stream.leave()
        call(factory, claim, engine, *views)

    monkeypatch.setattr(SessionFactory, "_call", observed)
    stream = _stream(runtime, door, policy="hermes")
    # Behind its largest calls, which it has made once.
    made.clear()
    streams.append(stream)
    stream.start()
    door.put(*map(float, range(40)))
    _until(lambda: stream.ended)
    assert (made.count("score"), made[-1]) == (1, "score")
    assert stream.error is None
    assert stream.session.memory().frames_seen == stream.status().frames["used"]
    stream.close()


def test_a_live_stream_goes_on_though_its_answers_cannot_be_written(
    runtime: Runtime, door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Deaf):
        def answer(self, stream: Stream, due: DueQuestion, answer: Answer) -> None:
            raise StorageError("the output cannot be written")

    asked = [TimedQuestion(0.0, "What?")]
    params = SamplingParams(max_new_tokens=2)
    stream = _stream(runtime, door, Full(), questions=asked, params=params, to_the_end=True)
    stream.start()
    door.put(0.0, 1.0)
    _until(lambda: stream.status().frames["used"] == 2)
    assert caplog.messages == ["door: the output cannot be written"]
    assert not stream.ended
    stream.close()
    assert isinstance(stream.error, StorageError)


def test_a_stream_is_starting_until_its_first_frame(runtime: Runtime, door: Any) -> None:
    stream = _stream(runtime, door)
    stream.start()
    _until(lambda: stream._state == "running")
    assert stream.status().state == "starting"
    door.put(0.0)
    _until(lambda: stream.status().frames["used"] == 1)
    assert stream.status().state == "running"
    stream.close()
    assert stream.status().state == "ended"


def test_leaving_cuts_an_answer_and_asks_no_more(
    runtime: Runtime, door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _stream(runtime, door, params=SamplingParams(max_new_tokens=200))
    stream.start()
    door.put(0.0)
    _until(lambda: stream.session.memory().frames_seen == 1)
    step, steps = stream.session._parts.runner.run, list[int]()

    def counted(*args: Any, **options: Any) -> Any:
        steps.append(1)
        if len(steps) == 5:
            stream.leave()
        return step(*args, **options)

    monkeypatch.setattr(stream.session._parts.runner, "run", counted)
    for _ in range(2):
        with pytest.raises(QuestionError) as refused:
            stream.ask("What?")
        message = "the stream ends, and the question is not answered: found 'What?'"
        assert str(refused.value) == message
    assert 5 <= len(steps) < 100
    stream.close()


def test_the_age_of_the_newest_frame_is_true_when_the_clock_is_set(
    runtime: Runtime, door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _stream(runtime, door)
    stream.start()
    door.put(0.0, 1.0, 2.0, 3.0)
    _until(lambda: stream.status().age_s is not None)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 1e9)
    assert 0.0 <= (stream.status().age_s or -1.0) < 1e6
    stream.close()


def test_sources_that_hang_are_told_of_once_each(
    runtime: Runtime, door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    def hanging(self: object) -> Generator[GrabbedFrame, None, None]:
        go_on.wait(60)
        yield from ()

    kind: Any = type("Hanging", (type(door),), {"grabs": hanging})
    streams = [_stream(runtime, kind(name)) for name in ("a", "b", "c")]
    service = _service(runtime, streams)
    with caplog.at_level(logging.WARNING, "hermes_edge"):
        service.stop()
        for stream in streams:
            stream.close()
    go_on.set()
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"{name}: hangs, and is left to its time-out" for name in ("a", "b", "c")
    ]
