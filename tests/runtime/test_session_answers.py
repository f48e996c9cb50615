"""Questions: what an answer says, and that asking leaves no trace in the memory."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hermes_edge.engines.views import Array
from hermes_edge.errors import QuestionError
from hermes_edge.runtime import Runtime, SamplingParams, Session

QUESTION = "Which shape moves?"
FRAMES = 14
SAMPLED = SamplingParams(max_new_tokens=24, temperature=1.5, seed=5)

VisualTokens = Callable[[int, int], Array]
Snapshot = Callable[[Session], list[bytes]]


@pytest.fixture()
def session(runtime: Runtime, visual_tokens: VisualTokens) -> Session:
    """Three chunks seen, the last one folded and evicted, and two frames of an open chunk."""
    made = runtime.session(budget_tokens=128, chunk_frames=4, reserve_tokens=256)
    made.feed_tokens(visual_tokens(FRAMES, 7), [float(n) for n in range(FRAMES)])
    return made


def test_answers_leave_the_memory_bit_identical(session: Session, snapshot: Snapshot) -> None:
    before = snapshot(session)
    whole = session.ask(QUESTION, SAMPLED)
    assert snapshot(session) == before
    stream = session.ask(QUESTION, SAMPLED, stream=True)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.answer.text == whole.text
    assert stream.answer.token_ids == whole.token_ids
    assert snapshot(session) == before
    half = session.ask(QUESTION, SAMPLED, stream=True)
    next(half)
    half.close()
    assert snapshot(session) == before
    stop = whole.text[len(whole.text) // 2]
    stopped = session.ask(QUESTION, SamplingParams(24, 1.5, stop=(stop,), seed=5))
    assert stopped.finish_reason == "stop"
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert snapshot(session) == before
    with pytest.raises(QuestionError, match="does not fit the reserve"):
        session.ask(QUESTION, SamplingParams(max_new_tokens=256))
    assert snapshot(session) == before


def test_the_stream_goes_on_as_if_nobody_had_asked(
    runtime: Runtime, session: Session, visual_tokens: VisualTokens, snapshot: Snapshot
) -> None:
    other = runtime.session(budget_tokens=128, chunk_frames=4, reserve_tokens=256)
    other.feed_tokens(visual_tokens(FRAMES, 7), [float(n) for n in range(FRAMES)])
    # Token ids leave no history, so the probes of both sessions stay the same.
    session.ask([5, 6, 7], SAMPLED)
    for one in (session, other):
        one.feed_tokens(visual_tokens(6, 8), 20.0)
    assert snapshot(session) == snapshot(other)


def test_an_answer_that_is_not_complete_has_no_figures(session: Session) -> None:
    stream = session.ask(QUESTION, SAMPLED, stream=True)
    next(stream)
    with pytest.raises(QuestionError) as caught:
        _ = stream.answer
    assert str(caught.value) == "the answer is not complete. Iterate to the end first"
    stream.close()


def test_the_thread_that_streams_is_told_that_the_session_is_busy(
    session: Session, visual_tokens: VisualTokens, snapshot: Snapshot
) -> None:
    before = snapshot(session)
    stream = session.ask(QUESTION, SAMPLED, stream=True)
    next(stream)
    busy = "the session is busy with a streamed answer. Iterate to its end or close() it first"
    for call in (
        lambda: session.feed_tokens(visual_tokens(1, 0), 20.0),
        session.flush,
        session.memory,
        session.rows,
        lambda: session.ask(QUESTION),
    ):
        with pytest.raises(QuestionError) as caught:
            call()
        assert str(caught.value) == busy
    stream.close()
    assert snapshot(session) == before
    session.feed_tokens(visual_tokens(1, 0), 20.0)
    assert session.memory().frames_seen == FRAMES + 1


def test_another_thread_waits_for_the_end_of_a_stream(
    session: Session, visual_tokens: VisualTokens
) -> None:
    stream = session.ask(QUESTION, SAMPLED, stream=True)
    next(stream)
    fed = threading.Event()

    def feed() -> None:
        session.feed_tokens(visual_tokens(1, 0), 20.0)
        fed.set()

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert not fed.wait(0.2)
    for _ in stream:
        assert not fed.is_set()
    assert fed.wait(20)
    feeder.join()
    assert stream.answer.video_time_s == FRAMES - 1
    assert session.memory().frames_seen == FRAMES + 1


def test_figures_of_an_answer_fit_together(runtime: Runtime, session: Session) -> None:
    answer = session.ask(QUESTION, SamplingParams(max_new_tokens=6))
    assert runtime.codec is not None
    assert answer.question_rows == len(runtime.codec.question_ids(QUESTION))
    assert answer.memory_rows == session.memory().rows == max(map(len, session.rows()))
    assert answer.video_time_s == FRAMES - 1
    assert answer.finish_reason == "length"
    assert len(answer.token_ids) == 6
    assert answer.text == runtime.codec.decode(answer.token_ids)
    assert answer.ttft_ms > 0
    assert answer.per_token_ms > 0
    assert 0 <= answer.catch_up_ms < 1
    assert session.ask(QUESTION, SamplingParams(max_new_tokens=1)).per_token_ms == 0


def test_waiting_frames_are_caught_up_with(runtime: Runtime) -> None:
    session = runtime.session(budget_tokens=128, chunk_frames=4, reserve_tokens=256)
    frame = np.full((48, 64, 3), 90, dtype=np.uint8)
    session.feed(frame, 1.0)
    assert session.timings().frames == 0
    assert session.memory().frames_seen == 1
    answer = session.ask(QUESTION, SamplingParams(max_new_tokens=1))
    assert answer.catch_up_ms > 0
    assert answer.video_time_s == 1.0
    assert session.timings().frames == 1


def test_greedy_answers_repeat_and_seeds_decide(session: Session) -> None:
    greedy = [session.ask([5, 6, 7], SamplingParams(max_new_tokens=8)) for _ in range(2)]
    assert greedy[0].token_ids == greedy[1].token_ids
    seeded = [
        session.ask([5, 6, 7], SamplingParams(8, temperature=2.0, seed=seed)).token_ids
        for seed in (1, 1, 2)
    ]
    assert seeded[0] == seeded[1]
    assert seeded[0] != seeded[2]


def test_the_end_token_ends_an_answer(random_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(random_bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["eos_token_ids"] = list(range(manifest["decoder"]["vocabulary"]))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    session = Runtime.load(folder, threads=1).session(budget_tokens=256, reserve_tokens=256)
    session.feed_tokens(np.ones((16, 64), dtype=np.float32), 0.0)
    answer = session.ask(QUESTION, SamplingParams(max_new_tokens=8))
    assert (answer.finish_reason, answer.token_ids, answer.text) == ("end", (), "")
    assert answer.ttft_ms > 0
    assert answer.per_token_ms == 0


def test_history_conditions_the_probes_to_come(runtime: Runtime, session: Session) -> None:
    probes = session._parts.encoder._probes
    before = probes()
    session.ask([5, 6, 7], SamplingParams(max_new_tokens=2))
    assert probes() == before
    answer = session.ask("Why?", SamplingParams(max_new_tokens=2))
    after = probes()
    assert after.working != before.working
    assert after.long_term != before.long_term
    assert runtime.codec is not None
    assert runtime.codec.decode(after.long_term).startswith(f"Why? {answer.text.strip()}".strip())
    closed = session.ask("Who?", SamplingParams(max_new_tokens=2), stream=True)
    closed.close()
    assert probes() == after
