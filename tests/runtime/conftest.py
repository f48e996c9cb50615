"""One runtime for the whole folder, and small streams of random visual tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hermes_edge.engines.views import Array, host_array
from hermes_edge.runtime import Runtime, Session

TOKENS_PER_FRAME = 16
WIDTH = 64


@pytest.fixture(scope="session")
def runtime(random_bundle: Path) -> Runtime:
    """The shipped bundle on one thread, so that results are repeatable to the bit."""
    return Runtime.load(random_bundle, threads=1)


@pytest.fixture(scope="session")
def visual_tokens() -> Callable[[int, int], Array]:
    """Random visual tokens [F*N, E] of ``frames`` frames from ``seed``."""

    def make(frames: int, seed: int) -> Array:
        random = np.random.default_rng(seed)
        return random.standard_normal((frames * TOKENS_PER_FRAME, WIDTH), dtype=np.float32)

    return make


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Session], list[bytes]]:
    """Every committed byte of a session: keys, values and the four records of each row."""

    def take(session: Session) -> list[bytes]:
        store = session._parts.store
        layers = range(len(store.rows))
        slabs = [host_array(v).tobytes() for layer in layers for v in store.committed(layer)]
        records = [
            array.tobytes()
            for rows in store.rows
            for array in (rows.position, rows.frame, rows.time, rows.weight)
        ]
        return slabs + records

    return take
