"""A video file, decoded as it streams.

    with open_source("street.mp4", fps=0.5) as source:
        for frame in source:                    # Frame(image uint8 [height, width, 3], time_s)
            ...
        if source.ended_early:
            warn(source.ended_early)

Sampling at ``fps`` gives, for every k, the first frame at or after k/fps seconds by the frames' own
timestamps: a variable frame rate is respected, and a rate above the native one gives every frame
once. No frame is held but the one at hand.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path

import cv2

from hermes_edge.arguments import path_of
from hermes_edge.errors import SourceError
from hermes_edge.sources.base import GrabbedFrame, Image, Source, SourceCounts, check_fps
from hermes_edge.sources.pictures import grab, printable, quiet_opencv, retrieved
from hermes_edge.storage import open_regular

# Where a container gives neither timestamps nor a frame rate.
_ASSUMED_FPS = 30.0
# Its duration counts from time 0, whenever its first frame is shown: in a piece of a recording,
# from the recording's beginning.
_MATROSKA = b"\x1aE\xdf\xa3"
_CHECK_VIDEO = "Check that the file is complete and plays elsewhere."


class VideoFile(Source):
    """A video that OpenCV can read. Every iteration starts at the beginning.

    Args:
        path: of the file.
        fps: frames per second of video to give; None for every frame.

    Raises:
        SettingsError: an argument of another type.
        SourceError: ``fps`` is not positive and finite, the file is missing, cannot be read, is
            empty, is not a video, or holds no frame.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        check_fps(fps)
        self.path = path_of("path", path)
        self.fps = fps
        self.name = printable(self.path)
        self.counts = SourceCounts()
        self.ended_early: str | None = None
        self._capture: cv2.VideoCapture | None = None
        capture = self._open()
        try:
            if not grab(capture, SourceCounts()):
                raise SourceError(f"{self.name} holds no frame", fix=_CHECK_VIDEO)
            native_fps = float(capture.get(cv2.CAP_PROP_FPS))
            frames = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()
        self._native_fps = native_fps if 0 < native_fps < math.inf else _ASSUMED_FPS
        # Streams without an index report a negative count, which promises nothing.
        self._promised_frames = max(frames, 0.0)

    @property
    def live(self) -> bool:
        """A file waits."""
        return False

    def grabs(self) -> Generator[GrabbedFrame, None, None]:
        """Every frame, with the container's times: gaps stay, steps back are corrected."""
        self.ended_early = None
        capture = self._capture = self._open()
        clock = _Clock(self._native_fps, self.counts)
        frames, time_s, before_s = 0, 0.0, 0.0
        try:
            # This decodes; the conversion in retrieve() is for the frames that are wanted.
            while self._capture is capture and grab(capture, self.counts):
                time_s = clock.stamp(float(capture.get(cv2.CAP_PROP_POS_MSEC)))
                if frames == 0:
                    before_s = self._uncounted_s(capture)
                frames += 1
                self.counts.frames_read += 1
                yield GrabbedFrame(time_s, time.time(), partial(self._retrieve, capture))
            if self._capture is capture:  # else it was closed, and nothing is known
                self.ended_early = self._missing(frames, time_s + 1 / self._native_fps, before_s)
        finally:
            capture.release()

    def close(self) -> None:
        """An iteration that is under way ends at its next frame, and releases the decoder."""
        self._capture = None

    def _retrieve(self, capture: cv2.VideoCapture) -> Image | None:
        picture = retrieved(capture)
        self.counts.bad_frames += picture is None
        return picture

    def _open(self) -> cv2.VideoCapture:
        try:
            with open_regular(self.path) as file:
                nbytes = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            raise SourceError(f"{self.name} does not exist") from None
        except OSError as error:
            raise SourceError(f"cannot read {self.name}", found=error.strerror) from None
        if self.name != str(self.path):
            # OpenCV crashes on such a name.
            raise SourceError(f"cannot open {self.name}", required="a name in UTF-8")
        if nbytes == 0:
            raise SourceError(f"{self.name} is empty", found="0 bytes", fix=_CHECK_VIDEO)
        with quiet_opencv():
            # An absolute path is never taken for an address or a protocol.
            capture = cv2.VideoCapture(os.path.abspath(self.path))
        if not capture.isOpened():
            raise SourceError(f"{self.name} cannot be read as a video", fix=_CHECK_VIDEO)
        return capture

    def _uncounted_s(self, capture: cv2.VideoCapture) -> float:
        """Seconds before the first frame, which was grabbed, that the promise counts as video."""
        with open_regular(self.path) as file:
            matroska = file.read(len(_MATROSKA)) == _MATROSKA
        if not matroska or not hasattr(cv2, "CAP_PROP_PTS"):  # OpenCV 4.10 and older
            return 0.0
        return max(float(capture.get(cv2.CAP_PROP_PTS)) / self._native_fps, 0.0)

    def _missing(self, seen_frames: int, seen_s: float, before_s: float) -> str | None:
        """What the container promised and did not hold, beyond what containers get wrong.

        Counts are often estimates (duration times mean rate, the duration that of a longer sound
        track), so frames and seconds must both be missing: a tenth, two frames at least, two
        seconds at most.
        """
        promised_s = self._promised_frames / self._native_fps - before_s
        tolerance_s = min(max(0.1 * promised_s, 2 / self._native_fps), 2.0)
        missing_s = promised_s - max(seen_s, seen_frames / self._native_fps)
        if missing_s <= tolerance_s:
            return None
        return f"{self.name} broke off after {seen_s:.1f} of {promised_s:.1f} s"


class _Clock:
    """Times that grow from frame to frame, whatever the container says."""

    def __init__(self, native_fps: float, counts: SourceCounts) -> None:
        self._counts = counts
        self._step_s = 1 / native_fps
        self._last_s: float | None = None

    def stamp(self, position_ms: float) -> float:
        """Seconds of the next frame: its own timestamp, or one step on where there is none."""
        known = math.isfinite(position_ms) and position_ms >= 0
        time_s = position_ms / 1000 if known else 0.0
        if self._last_s is not None and time_s <= self._last_s:
            time_s = self._last_s + self._step_s
            self._counts.time_corrections += 1
        self._last_s = time_s
        return time_s
