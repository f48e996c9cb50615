"""Between two engine calls everything stays on the device: what crosses is written down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from hermes_edge.contract import GraphName
from hermes_edge.engines import Bundle, Engine, View
from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.engines.views import Array
from hermes_edge.runtime import Runtime, SamplingParams, Session
from hermes_edge.runtime.exclusive import Exclusive
from hermes_edge.runtime.turns import Claim, Turns
from hermes_edge.shipped import TINY_BUNDLE
from hermes_edge.synthetic import draw_stream, make_stream

FRAMES = 24
CHUNK = 4


class Border(CudaDevice):
    """A device over host memory that writes down what crosses to it and back."""

    def __init__(self, cuda: Any) -> None:
        super().__init__(0, cuda)
        self.up: list[Array] = []
        self.down: list[View] = []

    def upload(self, source: Array, target: View) -> None:
        self.up.append(np.array(source))
        super().upload(source, target)

    def download(self, source: View) -> Array:
        self.down.append(source)
        return super().download(source)


class Across:
    """ONNX Runtime on the CPU, bound to addresses that the border gave out."""

    def __init__(self, device: Border) -> None:
        self.device = device

    def engine(self, bundle: Bundle, name: GraphName) -> Engine:
        return bundle.engine(name)


@pytest.fixture
def border(cuda: Any) -> Border:
    return Border(cuda)


@pytest.fixture
def session(border: Border) -> Session:
    runtime = Runtime(Bundle.open(TINY_BUNDLE), Across(border))
    return runtime.session(
        budget_tokens=128, chunk_frames=CHUNK, workspace_bytes=4 * 4 * 1000 * 100
    )


def feed(session: Session) -> None:
    for index, frame in enumerate(draw_stream(make_stream(1_000_000_000, FRAMES))):
        session.feed(frame, at=float(index))


def test_a_turn_lasts_until_the_device_is_done(
    border: Border, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronized, waited_for = 0, list[bool]()
    turn, synchronize = Turns.turn, border.synchronize

    def counted() -> None:
        nonlocal synchronized
        synchronized += 1
        synchronize()

    @contextmanager
    def watched(turns: Turns, claim: Claim, use: Exclusive | None = None) -> Iterator[None]:
        with turn(turns, claim, use):
            before = synchronized
            yield
            waited_for.append(synchronized > before)

    monkeypatch.setattr(border, "synchronize", counted)
    monkeypatch.setattr(Turns, "turn", watched)
    feed(session)
    session.ask("What is it now?", SamplingParams(max_new_tokens=2))
    assert waited_for and all(waited_for)


def test_scores_alone_come_down_and_frames_text_and_plans_go_up(
    session: Session, border: Border
) -> None:
    border.up.clear()
    border.down.clear()
    feed(session)
    assert session.timings().compactions > 0
    assert border.down and {(view.dtype, len(view.shape)) for view in border.down} == {
        ("float32", 1)
    }
    # Frames by the slice; of floating point only the probes' text, row by row, and fold weights.
    kinds = {(array.dtype.name, array.ndim) for array in border.up}
    assert kinds == {("uint8", 4), ("int64", 1), ("int64", 2), ("bool", 1), ("bool", 2)} | {
        ("float32", 1),
        ("float32", 2),
    }
    frames = sum(len(array) for array in border.up if array.ndim == 4)
    assert frames == FRAMES
    text = [array for array in border.up if array.ndim == 2 and array.dtype == np.float32]
    scored = sum(1 for array in border.up if array.dtype == bool and array.ndim == 2)
    assert 0 < len(text) < scored


def test_the_answers_are_those_of_the_cpu(session: Session, border: Border) -> None:
    feed(session)
    border.down.clear()
    sampling = SamplingParams(max_new_tokens=4)
    answer = session.ask("What is it now?", sampling)
    assert {(view.dtype, view.shape[0]) for view in border.down} == {("float32", 1)}
    plain = Runtime.load(TINY_BUNDLE).session(
        budget_tokens=128, chunk_frames=CHUNK, workspace_bytes=4 * 4 * 1000 * 100
    )
    feed(plain)
    assert plain.ask("What is it now?", sampling).token_ids == answer.token_ids
    for ours, theirs in zip(session.rows(), plain.rows(), strict=True):
        np.testing.assert_array_equal(ours.position, theirs.position)
        np.testing.assert_array_equal(ours.frame, theirs.frame)
