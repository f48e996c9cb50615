"""Frames that wait for the model, and what happens when there are too many.

    policy     a full ring                                  a frame may wait     default of
    latest     the oldest frame is dropped, counted         ring_frames / fps    live sources
    every      a file waits; a live source is an error      for ever             files, folders
    adaptive   as latest; before it is full, fps falls      for ever
    block      the source waits, a live one too             for ever

``latest`` guarantees that a frame is taken at most one chunk period, ring_frames / fps seconds,
after it arrived, however slow the model is and whatever the source does: older frames are dropped
when frames are taken. So one that is being encoded is at most that plus one encoding old.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple, get_args

from hermes_edge.arguments import whole
from hermes_edge.errors import SourceError
from hermes_edge.sources.base import Frame

BackPressure = Literal["latest", "every", "adaptive", "block"]


class _Waiting(NamedTuple):
    frame: Frame
    arrived_s: float


class Ring:
    """At most ``ring_frames`` frames, first in first out. Of one thread, or under a lock.

    Args:
        policy: see above.
        ring_frames: a chunk's, so that a model that keeps up loses nothing while it encodes one.
        fps: rate of the frames to come; None is unknown, and then ``latest`` bounds their number
            alone.

    Raises:
        SourceError: no such policy.
        SettingsError: ``ring_frames`` is no whole number, or leaves no room for a frame.
    """

    def __init__(self, policy: BackPressure, ring_frames: int, fps: float | None) -> None:
        if policy not in get_args(BackPressure):
            raise SourceError(
                "no such back-pressure policy",
                required=", ".join(get_args(BackPressure)),
                found=policy,
            )
        self.ring_frames = whole("ring_frames", ring_frames, least=1)
        self.dropped = 0
        self.newest_dropped = False
        """Whether the frame that came last was dropped, before anybody has taken it."""
        self._drops = policy in ("latest", "adaptive")
        self._most_age_s = ring_frames / fps if policy == "latest" and fps is not None else None
        self._waiting: deque[_Waiting] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest(self) -> Frame | None:
        """The frame that is taken next."""
        return self._waiting[0].frame if self._waiting else None

    @property
    def oldest_arrived_s(self) -> float | None:
        """When it arrived."""
        return self._waiting[0].arrived_s if self._waiting else None

    @property
    def has_room(self) -> bool:
        """Whether :meth:`put` is allowed; a ring that drops always has room."""
        return self._drops or len(self._waiting) < self.ring_frames

    def put(self, frame: Frame, now_s: float) -> None:
        """A frame that arrived now."""
        if len(self._waiting) == self.ring_frames:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(_Waiting(frame, now_s))
        self.newest_dropped = False

    def drop_outdated(self, now_s: float) -> None:
        """Drop what has waited longer than the policy allows."""
        while (
            self._waiting
            and self._most_age_s is not None
            and now_s - self._waiting[0].arrived_s > self._most_age_s
        ):
            self._waiting.popleft()
            self.dropped += 1
            self.newest_dropped = not self._waiting

    def drop_all(self) -> None:
        """Drop what waits."""
        self.dropped += len(self._waiting)
        self._waiting.clear()

    def take(self) -> Frame:
        """The oldest frame."""
        return self._waiting.popleft().frame
