"""A thread that reads a source, and a ring of bounded size between it and the model.

The thread grabs as fast as the source gives, and converts the frames alone that ``source.fps``
takes. Whoever encodes takes frames out of the ring, in its own time; what happens where that is too
slow says :mod:`hermes_edge.sources.ring`.
"""

from __future__ import annotations

import atexit
import logging
import math
import reprlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from hermes_edge.arguments import check_function, check_kind, real
from hermes_edge.errors import SettingsError, SourceError
from hermes_edge.sources.base import Frame, Image, Source, sampled
from hermes_edge.sources.ring import BackPressure, Ring
from hermes_edge.sources.sampler import AdaptiveRate, Sampler
from hermes_edge.sources.still import StillFilter

CLOSE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What has come of a source's frames so far.

    ``frames_read`` is all that it gave, ``frames_sampled`` what ``fps`` took of them;
    sampled = still + dropped + waiting + delivered, where no frame is on its way between them.
    """

    frames_read: int
    frames_sampled: int
    still: int
    dropped: int
    waiting: int
    delivered: int
    bad_frames: int
    time_corrections: int
    reconnects: int
    lost_s: float
    silent_s: float
    """Seconds since a frame was last read, or since the start; 0 once the source has ended, and
    where a frame waits for room: then it is not the source that keeps others waiting."""
    fps: float | None
    """At which frames are sampled now; None is all."""


class Capture:
    """Reads ``source`` in a thread of its own from now until its end, or :meth:`close`.

    Args:
        source: is closed with the capture, and used by nobody else.
        policy: of back-pressure; None is ``latest`` for a live source and ``every`` for another.
        ring_frames: that may wait, a chunk's.
        skip_still: leave out near-duplicates; see :mod:`hermes_edge.sources.still`.
        prepare: from a picture to what waits in its place, in the thread. A resizer here is what
            keeps the ring small: 16 frames of 1920 x 1080 are 100 MB.
        wake: is set whenever a frame has come or the stream has ended, for a consumer that waits
            for several captures at once.
        clock: of arrival and age, monotonic, in seconds.

    Raises:
        SourceError: no such policy, or ``adaptive`` has no ``fps`` to lower.
        SettingsError: an argument of another type, or ``ring_frames`` is below 1.
    """

    def __init__(
        self,
        source: Source,
        policy: BackPressure | None = None,
        *,
        ring_frames: int = 16,
        skip_still: bool = False,
        prepare: Callable[[Image], Image] | None = None,
        wake: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_kind("source", source, Source)
        if prepare is not None:
            check_function("prepare", prepare)
        if wake is not None:
            check_kind("wake", wake, threading.Event)
        check_function("clock", clock)
        self.source = source
        if policy is None:
            policy = "latest" if source.live else "every"
        self.policy: BackPressure = policy
        self._ring = Ring(self.policy, ring_frames, source.fps)
        self._sampler = Sampler(source.fps)
        self._rate: AdaptiveRate | None = None
        if self.policy == "adaptive":
            if source.fps is None:
                raise SourceError("adaptive has no rate to lower", required="fps of the source")
            self._rate = AdaptiveRate(source.fps, self._ring.ring_frames)
        self._still = StillFilter() if skip_still else None
        self._prepare, self._wake, self._clock = prepare, wake, clock
        self._sampled = self._skipped = self._delivered = 0
        self._heard_s = clock()
        self._ended = self._closed = self._full = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._run, name=f"capture {source.label}", daemon=True
        )
        # A thread that comes back from OpenCV while the interpreter ends would abort the process.
        atexit.register(self.close)
        self._thread.start()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Frames as they come, until the source ends.

        Raises:
            SourceError: as of :meth:`next_frame`.
        """
        while (frame := self.next_frame()) is not None:
            yield frame

    def next_frame(self, timeout_s: float | None = None) -> Frame | None:
        """The oldest waiting frame; None once there will be none, or after ``timeout_s``.

        Raises:
            SettingsError: ``timeout_s`` is neither None nor a number.
            SourceError: nothing waits any more, and the source has failed.
        """
        if timeout_s is not None:
            timeout_s = _checked_timeout_s(timeout_s)
        with self._changed:
            self._changed.wait_for(self._answer_known, timeout_s)
            if len(self._ring):
                self._delivered += 1
                self._changed.notify_all()
                return self._ring.take()
            if self._error is not None and not self._closed:
                raise self._error
            return None

    def _answer_known(self) -> bool:
        """Whether a frame waits that is young enough, or none will come."""
        self._ring.drop_outdated(self._clock())
        return len(self._ring) > 0 or self._ended

    @property
    def ended(self) -> bool:
        """Whether :meth:`next_frame` will give no frame any more."""
        with self._changed:
            return self._ended and not len(self._ring)

    @property
    def oldest_wall_s(self) -> float | None:
        """Unix time of the frame that is taken next, or None: of several streams, the smallest is
        to be served first."""
        with self._changed:
            self._ring.drop_outdated(self._clock())
            oldest = self._ring.oldest
            return None if oldest is None else oldest.wall_s

    @property
    def oldest_age_s(self) -> float | None:
        """Seconds since that frame arrived, or None."""
        with self._changed:
            now_s = self._clock()
            self._ring.drop_outdated(now_s)
            arrived_s = self._ring.oldest_arrived_s
            return None if arrived_s is None else now_s - arrived_s

    def counters(self) -> Counters:
        """A snapshot."""
        with self._changed:
            counts = self.source.counts
            return Counters(
                frames_read=counts.frames_read,
                frames_sampled=self._sampled,
                still=self._skipped,
                dropped=self._ring.dropped,
                waiting=len(self._ring),
                delivered=self._delivered,
                bad_frames=counts.bad_frames,
                time_corrections=counts.time_corrections,
                reconnects=counts.reconnects,
                lost_s=counts.lost_s,
                silent_s=0.0 if self._ended or self._full else self._clock() - self._heard_s,
                fps=self._sampler.fps,
            )

    def close(self) -> None:
        """End the thread; what waits is dropped.

        A source that hangs in a driver or a socket is given 2 seconds, then left to its time-out.
        Closing twice is fine, and waits once.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = self._ended = True
            self._ring.drop_all()
            self._changed.notify_all()
        self.source.close()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self.source.tell(logging.WARNING, "hangs, and is left to its time-out")

    def _run(self) -> None:
        try:
            with closing(self.source.grabs()) as grabs:
                for grabbed in grabs:
                    self._heard_s = self._clock()
                    if self._closed:
                        break
                    frame = sampled(grabbed, self._sampler)
                    if frame is not None:
                        self._offer(frame)
        except Exception as error:  # of any kind: the consumer's to raise, not the thread's to lose
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            if self._wake is not None:
                self._wake.set()
            atexit.unregister(self.close)

    def _is_still(self, frame: Frame, still: StillFilter) -> bool:
        with self._changed:
            # What nobody will see must not keep out the frames that look like it.
            self._ring.drop_outdated(self._heard_s)
            if self._ring.newest_dropped:
                still.forget()
        return still.skips(frame)

    def _offer(self, frame: Frame) -> None:
        still = self._still is not None and self._is_still(frame, self._still)
        if self._prepare is not None and not still:
            frame = replace(frame, image=self._prepare(frame.image))
        with self._changed:
            self._sampled += 1
            if still:
                self._skipped += 1
                return
            if self._rate is not None and self._rate.observe(len(self._ring)):
                self._sampler.change(self._rate.fps, frame.time_s)
            if self.policy == "every" and self.source.live and not self._ring.has_room:
                self._ring.dropped += 1
                raise SourceError(
                    f"{self.source.name} gives frames faster than they are encoded",
                    required="every frame",
                    found=f"{len(self._ring)} frames waiting and no room for more",
                    fix="Lower fps, or let frames go: latest or adaptive.",
                )
            arrived_s = self._heard_s
            if not self._ring.has_room:
                self._full = True
                self._changed.wait_for(lambda: self._ring.has_room or self._closed)
                self._full, self._heard_s = False, self._clock()
            if self._closed:
                self._ring.dropped += 1
                return
            self._ring.put(frame, arrived_s)
            self._changed.notify_all()
        if self._wake is not None:
            self._wake.set()


def _checked_timeout_s(timeout_s: float) -> float:
    number = real(timeout_s)
    if number is None or math.isnan(number):
        required, found = "seconds, or None to wait for ever", reprlib.repr(timeout_s)
        raise SettingsError("timeout_s is not a number", required=required, found=found)
    return min(number, threading.TIMEOUT_MAX)  # more is refused by the system
