"""Sessions of one runtime, fed alternately and from threads: each as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from hermes_edge.engines.views import Array
from hermes_edge.runtime import Runtime, SamplingParams, Session

QUESTION = "Which shape moves?"
SAMPLED = SamplingParams(max_new_tokens=6, temperature=1.5, seed=3)
CHUNKS = 5
POLICIES = ("hermes", "hermes-released", "window", "hermes")

VisualTokens = Callable[[int, int], Array]
Snapshot = Callable[[Session], list[bytes]]
Outcome = tuple[list[bytes], list[tuple[int, ...]]]


def new_session(runtime: Runtime, stream: int) -> Session:
    return runtime.session(
        policy=POLICIES[stream], budget_tokens=64 + 16 * stream, chunk_frames=4, reserve_tokens=256
    )


def step(session: Session, stream: int, chunk: int, visual_tokens: VisualTokens) -> tuple[int, ...]:
    """A chunk and a question, which conditions the chunks after it."""
    session.feed_tokens(visual_tokens(4, 100 * stream + chunk), float(chunk))
    return session.ask(f"{QUESTION} {stream}", SAMPLED).token_ids


@pytest.mark.parametrize("streams", [2, 4])
def test_sessions_do_not_touch_each_other(
    runtime: Runtime, visual_tokens: VisualTokens, snapshot: Snapshot, streams: int
) -> None:
    alone: list[Outcome] = []
    for stream in range(streams):
        session = new_session(runtime, stream)
        said = [step(session, stream, chunk, visual_tokens) for chunk in range(CHUNKS)]
        alone.append((snapshot(session), said))
    assert alone[0] != alone[1]

    sessions = [new_session(runtime, stream) for stream in range(streams)]
    answers: list[list[tuple[int, ...]]] = [[] for _ in sessions]
    for chunk in range(CHUNKS):
        for stream, session in enumerate(sessions):
            answers[stream].append(step(session, stream, chunk, visual_tokens))
    assert [(snapshot(s), a) for s, a in zip(sessions, answers, strict=True)] == alone

    threaded: dict[int, Outcome] = {}
    start = threading.Barrier(streams)

    def run(stream: int) -> None:
        session = new_session(runtime, stream)
        start.wait()
        said = [step(session, stream, chunk, visual_tokens) for chunk in range(CHUNKS)]
        threaded[stream] = (snapshot(session), said)

    threads = [threading.Thread(target=run, args=(stream,)) for stream in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [threaded[stream] for stream in range(streams)] == alone


def test_one_session_is_fed_and_asked_from_two_threads(
    runtime: Runtime, visual_tokens: VisualTokens, snapshot: Snapshot
) -> None:
    """Questions in token ids leave no history: the memory must not depend on when they come."""
    alone, shared = new_session(runtime, 0), new_session(runtime, 0)
    for chunk in range(CHUNKS):
        alone.feed_tokens(visual_tokens(4, chunk), float(chunk))
    shared.feed_tokens(visual_tokens(4, 0), 0.0)
    fed = threading.Event()
    answers = []

    def ask() -> None:
        while not fed.is_set():
            answers.append(shared.ask([5, 6, 7], SAMPLED))

    asker = threading.Thread(target=ask)
    asker.start()
    for chunk in range(1, CHUNKS):
        shared.feed_tokens(visual_tokens(4, chunk), float(chunk))
    fed.set()
    asker.join()
    assert snapshot(shared) == snapshot(alone)
    assert all(len(answer.token_ids) == 6 or answer.finish_reason == "end" for answer in answers)
