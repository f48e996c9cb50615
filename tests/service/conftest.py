"""A runtime, and sources whose frames the test hands out."""

from __future__ import annotations

import queue
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from hermes_edge.runtime import Runtime
from hermes_edge.sources import GrabbedFrame, Source, SourceCounts


@pytest.fixture(scope="session")
def runtime(random_bundle: Path) -> Runtime:
    """The shipped bundle on one thread, so that results are repeatable to the bit."""
    return Runtime.load(random_bundle, threads=1)


class HandedOut(Source):
    """A live source: frames that the test puts in, seconds apart as it says."""

    def __init__(self, name: str = "door", fps: float | None = None) -> None:
        self.name, self.fps = name, fps
        self.counts = SourceCounts()
        self.ended_early = None
        self._frames: queue.Queue[float | None] = queue.Queue()

    @property
    def live(self) -> bool:
        return True

    def put(self, *times_s: float) -> None:
        """A frame for each time."""
        for time_s in times_s:
            self._frames.put(time_s)

    def grabs(self) -> Generator[GrabbedFrame, None, None]:
        while (time_s := self._frames.get()) is not None:
            self.counts.frames_read += 1
            chance = np.random.default_rng(round(time_s * 1000))
            seen = chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            yield GrabbedFrame(time_s, time.time(), seen.copy)

    def close(self) -> None:
        self._frames.put(None)


@pytest.fixture
def door() -> HandedOut:
    return HandedOut()
