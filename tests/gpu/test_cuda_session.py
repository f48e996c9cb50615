"""A whole stream on a GPU beside the same stream on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.runtime import Runtime, SamplingParams, Session
from hermes_edge.shipped import TINY_BUNDLE
from hermes_edge.synthetic import SPLITS, draw_stream, make_stream

pytestmark = pytest.mark.gpu

FRAMES = 64
SHAPE: dict[str, Any] = {"budget_tokens": 256, "chunk_frames": 4, "reserve_tokens": 96}


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime.load(TINY_BUNDLE, device="cuda:0")


def answers(session: Session) -> Iterator[str]:
    frames = draw_stream(make_stream(SPLITS["held-out"][0], FRAMES))
    for index, frame in enumerate(frames):
        session.feed(frame, at=float(index))
        if index % 8 == 7:
            yield session.ask("What is it now?", SamplingParams(max_new_tokens=6)).text


def test_memory_and_answers_are_those_of_the_cpu(runtime: Runtime) -> None:
    here = Runtime.load(TINY_BUNDLE).session(**SHAPE)
    there = runtime.session(**SHAPE)
    assert [*answers(here)] == [*answers(there)]
    for ours, theirs in zip(here.rows(), there.rows(), strict=True):
        np.testing.assert_array_equal(ours.position, theirs.position)


def test_an_ask_leaves_the_memory_bit_identical(runtime: Runtime) -> None:
    session = runtime.session(**SHAPE)
    [*answers(session)]
    store, download = session._parts.store, session._parts.runner.download

    def content() -> list[bytes]:
        layers = range(len(store.rows))
        return [download(view).tobytes() for layer in layers for view in store.committed(layer)]

    before = content()
    session.ask("Did a ring appear?", SamplingParams(max_new_tokens=6))
    assert content() == before


def test_bytes_of_the_device_stay_as_they_were_planned(runtime: Runtime) -> None:
    device = runtime._factory.device
    assert isinstance(device, CudaDevice)
    session = runtime.session(**SHAPE)
    before = device.allocated_bytes
    memory = session.memory()
    assert before >= memory.slab_bytes + memory.spare_bytes
    [*answers(session)]
    assert device.allocated_bytes == before
