"""Sources that never end: cameras, streams by address, GStreamer pipelines.

*Times are those of arrival*, from the monotonic clock. What cameras and FFmpeg say themselves is no
better: FFmpeg 8 gives a motion JPEG stream of 10 frames a second the times of 25, and behind RTSP
its clock goes back when the first sender report arrives (seen: by 0.5 s). So no camera's clock can
bend the timeline; what a frame's way to this machine took is in none of its times.

*A source is lost* when it ends, gives no frame for its read timeout, or gives ``MOST_BAD_FRAMES``
bad ones in a row. Then it is tried again until it is back or closed, and the timeline goes on with
the seconds that have passed. The first connection is tried once, because a wrong address is an
error, but where the source ``insists``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Generator
from functools import partial

import cv2

from hermes_edge.arguments import check_kind
from hermes_edge.errors import SourceError
from hermes_edge.sources.base import GrabbedFrame, Image, Source, SourceCounts, check_fps
from hermes_edge.sources.pictures import MOST_BAD_FRAMES, quiet_opencv, retrieved
from hermes_edge.sources.reconnect import Backoff

# A connection that has ended refuses at once (FFmpeg 8: 10 µs), one whose frames are damaged when
# the next one has come. What a busy machine adds to the former stays below this but now and then.
_AT_ONCE_S = 0.01
# Where a refusal took so much of a read timeout, nothing came; V4L2 has a timeout of its own.
_SILENT_SHARE = 0.9
_SILENT_S = 1.0


class LiveSource(Source):
    """Connects, reads, notices a loss, connects again; a subclass says how to connect."""

    def __init__(
        self, name: str, fps: float | None, backoff: Backoff | None, read_timeout_s: float
    ) -> None:
        check_fps(fps)
        if backoff is not None:
            check_kind("backoff", backoff, Backoff)
        self.name = name
        self.fps = fps
        self.counts = SourceCounts()
        self.ended_early: str | None = None
        self.insists = False
        """Whether the first connection is tried again, too, as if the source had been lost."""
        self._read_timeout_s = read_timeout_s
        finite = math.isfinite(read_timeout_s)
        self._silent_s = _SILENT_SHARE * read_timeout_s if finite else _SILENT_S
        self._backoff = Backoff() if backoff is None else backoff
        self._closed = threading.Event()
        self._start_s: float | None = None
        self._last_s = 0.0
        self._bad_in_a_row = 0

    @property
    def live(self) -> bool:
        """Frames come at their own pace."""
        return True

    def close(self) -> None:
        """For good: an iteration ends at its next frame, or when its wait for one times out."""
        self._closed.set()

    def grabs(self) -> Generator[GrabbedFrame, None, None]:
        """Frames as they arrive, across losses, until it is closed.

        Raises:
            SourceError: the first connection fails, and the source does not insist.
        """
        self._last_s = time.monotonic()
        with quiet_opencv():
            capture = self._begin()
            while capture is not None:
                connected_s = time.monotonic()
                try:
                    why = yield from self._read(capture)
                finally:
                    capture.release()
                if self._closed.is_set():
                    return
                self.tell(logging.WARNING, "lost: %s", why)
                # The silence in which the loss was noticed is no part of it.
                self._backoff.connection_lasted(self._last_s - connected_s)
                capture = self._reconnect()

    def _begin(self) -> cv2.VideoCapture | None:
        """The first connection; None where it is closed before there is one."""
        try:
            if (capture := self._connect()) is None:
                if self._closed.is_set():
                    return None
                raise self._refusal()
        except SourceError as error:
            if not self.insists:
                raise
            self.tell(logging.WARNING, "not there yet: %s", error)
            return self._reconnect()
        self.tell(logging.INFO, "opened%s", "" if self.stream is None else f" {self.name}")
        return capture

    @abstractmethod
    def _open(self) -> cv2.VideoCapture:
        """A new connection, opened or not.

        Raises:
            SourceError: it is known why there can be none.
        """

    @abstractmethod
    def _refusal(self) -> SourceError:
        """What to say of a first connection that does not open or gives no frame."""

    def _connect(self) -> cv2.VideoCapture | None:
        """A connection whose first frame is grabbed, if there is one.

        Raises:
            SourceError: as of :meth:`_open`.
        """
        capture = self._open()
        if self._grab(capture, math.inf) is None:
            return capture
        capture.release()
        return None

    def _read(self, capture: cv2.VideoCapture) -> Generator[GrabbedFrame, None, str]:
        """Frames of one connection, the first of which is grabbed; returns why it ended."""
        self._bad_in_a_row = 0
        while not self._closed.is_set():
            yield self._grabbed(capture)
            if self._bad_in_a_row >= MOST_BAD_FRAMES:
                return f"{MOST_BAD_FRAMES} bad frames in a row"
            if (why := self._grab(capture, self._read_timeout_s)) is not None:
                return why
        return "closed"

    def _grab(self, capture: cv2.VideoCapture, most_s: float) -> str | None:
        """Ask for the next frame: None where there is one within ``most_s``, else why not.

        Where the decoder refuses one, it is bad, and the next is asked for. A connection that has
        ended refuses, too, again and again: how long that took tells one from the other.
        """
        refused = slow = at_once = 0
        while not self._closed.is_set():
            asked_s = time.monotonic()
            given = capture.grab()
            took_s = time.monotonic() - asked_s
            if given and took_s < most_s:
                self._count_bad(refused)
                return None
            # After a time-out FFmpeg empties its decoder: a frame that old has no time.
            if given or took_s >= self._silent_s:
                self._count_bad(refused)
                break
            refused += 1
            slow, at_once = (slow + 1, 0) if took_s >= _AT_ONCE_S else (slow, at_once + 1)
            if slow == MOST_BAD_FRAMES:
                self._count_bad(refused)
                return f"{MOST_BAD_FRAMES} bad frames in a row"
            if at_once == MOST_BAD_FRAMES:
                self._count_bad(slow - 1)  # the last one waited for the end
                break
        return f"no more frames, the last one {time.monotonic() - self._last_s:.1f} s ago"

    def _count_bad(self, refused: int) -> None:
        self.counts.frames_read += max(refused, 0)
        self.counts.bad_frames += max(refused, 0)

    def _grabbed(self, capture: cv2.VideoCapture) -> GrabbedFrame:
        # Strictly growing where two frames fall into one tick of the clock.
        self._last_s = now_s = max(time.monotonic(), self._last_s + 1e-6)
        if self._start_s is None:
            self._start_s = now_s
        self.counts.frames_read += 1
        return GrabbedFrame(now_s - self._start_s, time.time(), partial(self._retrieve, capture))

    def _retrieve(self, capture: cv2.VideoCapture) -> Image | None:
        picture = retrieved(capture)
        self._bad_in_a_row = self._bad_in_a_row + 1 if picture is None else 0
        self.counts.bad_frames += picture is None
        return picture

    def _reconnect(self) -> cv2.VideoCapture | None:
        """A new connection, or None once it is closed."""
        while True:
            wait_s = self._backoff.next_s()
            self.tell(logging.INFO, "reconnecting in %.1f s", wait_s)
            if self._closed.wait(wait_s):
                return None
            try:
                capture = self._connect()
            except SourceError as error:
                self.tell(logging.INFO, "still away: %s", error)
                continue
            if capture is not None:
                away_s = time.monotonic() - self._last_s
                self.counts.reconnects += 1
                self.counts.lost_s += away_s
                self.tell(logging.WARNING, "back after %.1f s", away_s)
                return capture
