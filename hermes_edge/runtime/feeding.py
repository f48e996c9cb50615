"""Frames on their way into a session's memory: they wait for their slice, and are encoded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hermes_edge.engines.views import Array, Rows, row_slice
from hermes_edge.errors import BundleError, QuestionError
from hermes_edge.runtime.frames import FrameEncoder, capture_time, checked_tokens, frame_times
from hermes_edge.runtime.parts import SessionParts
from hermes_edge.runtime.turns import GivenUp
from hermes_edge.spec import PRECISION_DTYPE


class Feeder:
    """What :meth:`Session.feed` does; whoever calls it holds the session.

    Attributes:
        newest_s: time of the newest frame, encoded or not.
    """

    def __init__(self, parts: SessionParts, newest_s: float) -> None:
        self._parts = parts
        self.newest_s = newest_s

    @property
    def waiting(self) -> int:
        """Frames that wait to be encoded."""
        return self._parts.frames.waiting if self._parts.frames is not None else 0

    def add(self, frame: npt.NDArray[np.uint8], at: float, captured_s: float | None) -> None:
        """As :meth:`Session.feed`."""
        frames = self._frames()
        (at,) = frame_times(at, 1, self.newest_s)
        captured_s = capture_time(captured_s)
        # Those of an encoding that was given up fill their slice already.
        self._encode_full()
        if self._is_full():
            raise QuestionError("the session encodes no more, and has no room for a frame")
        frames.add(frame, at)
        self._parts.claim.came(captured_s)
        self._encode_full()
        self.newest_s = at

    def add_tokens(self, visual_tokens: Array, at: float | Sequence[float]) -> None:
        """As :meth:`Session.feed_tokens`."""
        parts = self._parts
        shape = (parts.shape.tokens_per_frame, parts.width)
        tokens = checked_tokens(visual_tokens, shape, PRECISION_DTYPE[parts.manifest.precision])
        times = frame_times(at, len(tokens) // parts.shape.tokens_per_frame, self.newest_s)
        self.encode_waiting()
        parts.claim.came(None)
        self._append(tokens, times)

    def encode_waiting(self) -> None:
        """Encode what waits; where that is given up, all of it waits again."""
        if not self.waiting:
            return
        encoder, times = self._parts.encoder, list[float]()
        try:
            with self._parts.frame_turn():
                # None are left where a question got in before: it has encoded them.
                if not self.waiting:
                    return
                began = encoder.clock()
                tokens, times = self._frames().encode()
                encoder.times.vision_ms += (encoder.clock() - began) * 1e3
            self._append(tokens, times)
        except GivenUp:
            self._frames().put_back(times)

    def _frames(self) -> FrameEncoder:
        if self._parts.frames is None:
            raise BundleError(
                "this bundle has no vision graph", fix="Give visual tokens with feed_tokens()"
            )
        return self._parts.frames

    def _is_full(self) -> bool:
        most = min(self._parts.shape.slice_frames, self._parts.encoder.frames_left)
        return self.waiting >= most

    def _encode_full(self) -> None:
        if self._is_full():
            self.encode_waiting()

    def _append(self, tokens: Rows, times: Sequence[float]) -> None:
        """Cut at the ends of chunks, and into slices of whole frames."""
        shape, encoder = self._parts.shape, self._parts.encoder
        done = 0
        while done < len(times):
            count = min(encoder.frames_left, len(times) - done)
            start, stop = (frame * shape.tokens_per_frame for frame in (done, done + count))
            encoder.append(row_slice(tokens, start, stop), times[done : done + count])
            done += count
            self.newest_s = times[done - 1]
        self._parts.claim.oldest_s = math.inf
