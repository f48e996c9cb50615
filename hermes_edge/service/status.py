"""What a stream looks like from outside: plain records that table, metrics and log lines read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hermes_edge.runtime.chunks import StageTimes

State = Literal["starting", "running", "silent", "ended", "failed"]


@dataclass(slots=True)
class Times:
    """How often something was done, how long it took in all, and the last time."""

    count: int = 0
    sum_ms: float = 0.0
    last_ms: float = 0.0

    def add(self, took_ms: float, count: int = 1) -> None:
        """``count`` of them took ``took_ms`` together."""
        if count:
            self.count += count
            self.sum_ms += took_ms
            self.last_ms = took_ms / count


class Rate:
    """Events per second over the last 5 to 10 seconds."""

    def __init__(self) -> None:
        self._marks = [(time.monotonic(), 0)] * 2

    def of(self, now_s: float, count: int) -> float:
        """The rate, given the count now."""
        if now_s - self._marks[1][0] >= 5.0:
            self._marks = [self._marks[1], (now_s, count)]
        since_s, before = self._marks[0]
        return (count - before) / (now_s - since_s) if now_s > since_s else 0.0


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream at one moment.

    Attributes:
        name: of the stream.
        state: what it is doing.
        fps_in: frames per second that the source gave lately.
        frames: counts since the start, by what became of them.
        reconnects: times that a lost source came back.
        age_s: from the capture of the newest encoded frame to now; None before the first.
        rows_by_band: committed rows of each band's largest layer.
        slab_bytes: spare pair included.
        first_token, further_token: of all answers.
        stages: milliseconds by stage since the start.
        saves, save_failures: of snapshots; ``save`` their times, ``pause`` the stream's waits.
        restored: whether the memory came from a snapshot.
    """

    name: str
    state: State
    fps_in: float = 0.0
    frames: Mapping[str, int] = field(default_factory=dict)
    reconnects: int = 0
    age_s: float | None = None
    rows_by_band: Mapping[str, int] = field(default_factory=dict)
    slab_bytes: int = 0
    first_token: Times = field(default_factory=Times)
    further_token: Times = field(default_factory=Times)
    stages: StageTimes = field(default_factory=StageTimes)
    save_failures: int = 0
    save: Times = field(default_factory=Times)
    pause: Times = field(default_factory=Times)
    restored: bool = False

    @property
    def rows(self) -> int:
        """Of the largest layer."""
        return max(self.rows_by_band.values(), default=0)
