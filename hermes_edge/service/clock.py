"""The time of a stream, which its frames and its questions share."""

from __future__ import annotations

import time

from hermes_edge.runtime import Frame


class StreamClock:
    """Time of frames; of a live source also of moments without one, for it passes all the same."""

    def __init__(self, goes_on: tuple[float, float] | None, *, live: bool) -> None:
        """``goes_on``: a time, and ``time.monotonic()`` then; None to begin at the source's 0."""
        self._goes_on, self._live = goes_on, live
        self._begins_s: float | None = None
        # time.monotonic() at time 0.
        self._origin_s = None if goes_on is None else goes_on[1] - goes_on[0]

    def time_of(self, frame: Frame) -> float:
        """Seconds from the stream's beginning to this frame; frames come in their order."""
        if self._begins_s is None:
            at_0_s = frame.captured_s - frame.time_s
            self._begins_s = 0.0
            if self._goes_on is not None:
                then_s, since_s = self._goes_on
                self._begins_s = then_s + max(at_0_s - since_s, 0.0)
            self._origin_s = at_0_s - self._begins_s
        return self._begins_s + frame.time_s

    @property
    def now_s(self) -> float | None:
        """Seconds that have passed in a live stream; None before it has begun, and of a file."""
        if not self._live or self._origin_s is None:
            return None
        return time.monotonic() - self._origin_s
