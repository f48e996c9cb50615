"""Which frames are taken: a rate over the frames' own times, and a rate that gives way."""

from __future__ import annotations

import math

# Containers store times as whole milliseconds, rounded or cut off.
_TIME_RESOLUTION_S = 1e-3

# A rate is lowered by a quarter for every frame that finds the ring three quarters full: from there
# to a full ring of 16 frames are four steps, so a consumer that is three times too slow is met
# before the first drop.
_LOWER = 0.75
_CROWDED = 0.75
# It is raised by a tenth once a whole ring of frames has found at most a quarter waiting. Between
# the two lies a factor of three in the rate, so that a consumer in batches makes nothing swing.
_RAISE = 1.1
_SPARSE = 0.25
_LEAST_SHARE = 1 / 64


class Sampler:
    """Takes the first frame at or after every k/fps seconds; None takes all."""

    def __init__(self, fps: float | None) -> None:
        self.fps = fps
        self._origin_s = 0.0
        self._next_index = 0

    def due(self, time_s: float) -> bool:
        """Whether this frame is to be taken."""
        return self.fps is None or self._index(time_s, self.fps) >= self._next_index

    def take(self, time_s: float) -> None:
        """This frame was taken."""
        if self.fps is not None:
            self._next_index = self._index(time_s, self.fps) + 1

    def change(self, fps: float, time_s: float) -> None:
        """From the frame that was taken at ``time_s`` on, another rate."""
        self.fps, self._origin_s, self._next_index = fps, time_s, 1

    def _index(self, time_s: float, fps: float) -> int:
        return math.floor((time_s - self._origin_s + _TIME_RESOLUTION_S) * fps)


class AdaptiveRate:
    """A rate between 1/64 of ``fps`` and ``fps`` that a ring of waiting frames steers."""

    def __init__(self, fps: float, ring_frames: int) -> None:
        self.fps = fps
        self._most_fps = fps
        self._ring_frames = ring_frames
        self._sparse = 0

    def observe(self, waiting: int) -> bool:
        """A taken frame finds ``waiting`` frames before it; whether the rate changes."""
        before = self.fps
        if waiting >= _CROWDED * self._ring_frames:
            self.fps = max(self.fps * _LOWER, self._most_fps * _LEAST_SHARE)
            self._sparse = 0
        elif waiting <= _SPARSE * self._ring_frames:
            self._sparse += 1
            if self._sparse >= self._ring_frames:
                self.fps = min(self.fps * _RAISE, self._most_fps)
                self._sparse = 0
        else:
            self._sparse = 0
        return self.fps != before
