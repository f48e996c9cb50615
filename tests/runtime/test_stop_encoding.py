"""A session that is told to encode no more, at every engine call of a chunk."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.engines import Engine
from hermes_edge.engines.views import Array
from hermes_edge.errors import EngineError, QuestionError
from hermes_edge.runtime import Runtime, SamplingParams, Session
from hermes_edge.runtime.factory import SessionFactory
from hermes_edge.runtime.turns import Claim

Snapshot = Callable[[Session], list[bytes]]
VisualTokens = Callable[[int, int], Array]

# The frame that closes the third chunk.
LAST = 11


def frame(index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def feed(session: Session, start: int, stop: int) -> Session:
    for index in range(start, stop):
        session.feed(frame(index), 0.5 * index)
    return session


class Calls:
    """Engine calls in order; before one of them something is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.act: Callable[[], object] = lambda: None
        self.act_at = -1
        call = SessionFactory._call

        def observed(factory: SessionFactory, claim: Claim, engine: Engine, *views: Any) -> None:
            self.made.append(engine.graph.name)
            if len(self.made) - 1 == self.act_at:
                self.act()
            call(factory, claim, engine, *views)

        monkeypatch.setattr(SessionFactory, "_call", observed)

    def at(self, index: int, act: Callable[[], object]) -> None:
        self.made.clear()
        self.act_at, self.act = index, act


@pytest.mark.parametrize(
    ("policy", "workspace_bytes"),
    [
        # So little workspace that a frame takes several passes, and probes their own.
        pytest.param("hermes", 1 << 14, id="probes of their own"),
        pytest.param("hermes", 1 << 20, id="probes that ride"),
        pytest.param("hermes-released", 1 << 20, id="embeddings"),
        pytest.param("window", 1 << 20, id="no probes"),
    ],
)
def test_it_stops_behind_the_call_in_flight_and_loses_nothing(
    policy: str,
    workspace_bytes: int,
    runtime: Runtime,
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch)

    def session() -> Session:
        return runtime.session(
            policy=policy,
            budget_tokens=64,
            chunk_frames=4,
            reserve_tokens=64,
            workspace_bytes=workspace_bytes,
        )

    unbroken = feed(session(), 0, LAST)
    calls.at(-1, lambda: None)
    feed(unbroken, LAST, LAST + 1)
    of_a_chunk = [*calls.made]
    feed(unbroken, LAST + 1, LAST + 5)
    stopped_behind = set[str]()
    for index in itertools.count():
        if index == len(of_a_chunk):
            break
        stopped = feed(session(), 0, LAST)
        calls.at(index, stopped.stop_encoding)
        feed(stopped, LAST, LAST + 1)
        stopped_behind.add(of_a_chunk[index])
        begun = of_a_chunk[index] == "compact"
        assert calls.made == (of_a_chunk if begun else of_a_chunk[: index + 1])
        path = stopped.save(tmp_path / f"{index}.safetensors").path
        restored = runtime.restore(path)
        assert restored.memory().frames_seen == LAST + 1
        feed(restored, LAST + 1, LAST + 5)
        assert snapshot(restored) == snapshot(unbroken)
    assert {"vision", "decoder", "compact"} <= stopped_behind


def test_what_it_says_of_more_frames(runtime: Runtime, visual_tokens: VisualTokens) -> None:
    session = runtime.session(budget_tokens=64, chunk_frames=4, reserve_tokens=64)
    feed(session, 0, 4)
    session.stop_encoding()
    with pytest.raises(QuestionError) as refused:
        session.feed_tokens(visual_tokens(4, 0), 5.0)
    assert str(refused.value) == "the session encodes no more. Save it, and restore it"
    feed(session, 12, 16)
    with pytest.raises(QuestionError) as refused:
        feed(session, 16, 17)
    assert str(refused.value) == "the session encodes no more, and has no room for a frame"
    assert session.memory().frames_seen == 8
    # It still answers, of what it has encoded.
    answer = session.ask([5, 6, 7], SamplingParams(max_new_tokens=1))
    assert answer.video_time_s == 1.5


@pytest.mark.parametrize("index", range(3))
def test_a_call_that_fails_leaves_a_memory_that_can_be_saved(
    index: int,
    runtime: Runtime,
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise EngineError("out of memory")

    calls = Calls(monkeypatch)
    session = runtime.session(budget_tokens=64, chunk_frames=4, reserve_tokens=64)
    feed(session, 0, LAST)
    session.catch_up()
    before = snapshot(session)
    calls.at(index, fail)
    with pytest.raises(EngineError):
        feed(session, LAST, LAST + 1)
    assert snapshot(session) == before
    assert snapshot(runtime.restore(session.save(tmp_path / "memory").path)) == before
