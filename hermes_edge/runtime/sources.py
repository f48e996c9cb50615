"""Frames with their times, from a video file or a folder of images, decoded as they stream.

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
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from hermes_edge.errors import SourceError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# Containers store times as whole milliseconds, rounded or cut off.
_TIME_RESOLUTION_S = 1e-3
# Where a container gives neither timestamps nor a frame rate.
_ASSUMED_FPS = 30.0
_CHECK_VIDEO = "Check that the file is complete and plays elsewhere."
_logging_lock = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture, uint8 RGB [height, width, 3], at ``time_s`` seconds of the stream."""

    image: npt.NDArray[np.uint8]
    time_s: float


class VideoFile:
    """A video that OpenCV can read. Every iteration starts at the beginning.

    Args:
        path: of the file.
        fps: frames per second of video to give; None for every frame.

    Raises:
        SourceError: ``fps`` is not positive and finite, the file is missing, is empty, is not a
            video, or holds no frame.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        _check_fps(fps)
        self.path = Path(path)
        self.fps = fps
        self.ended_early: str | None = None
        """After an iteration: what is missing at the end, in one sentence, or None."""
        self._name = _printable(self.path)
        self._capture: cv2.VideoCapture | None = None
        capture = self._open()
        try:
            if not capture.grab():
                raise SourceError(f"{self._name} holds no frame", fix=_CHECK_VIDEO)
            native_fps = float(capture.get(cv2.CAP_PROP_FPS))
            frames = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()
        self._native_fps = native_fps if 0 < native_fps < math.inf else _ASSUMED_FPS
        # Streams without an index report a negative count, which promises nothing.
        self._promised_frames = max(frames, 0.0)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        self.close()
        self.ended_early = None
        capture = self._capture = self._open()
        clock, sampler = _Clock(self._native_fps), _Sampler(self.fps)
        frames, time_s = 0, 0.0
        try:
            # grab() decodes; the conversion in retrieve() is for the frames that are given.
            while capture.grab():
                time_s = clock.stamp(float(capture.get(cv2.CAP_PROP_POS_MSEC)))
                frames += 1
                if sampler.takes(time_s):
                    _, picture = capture.retrieve()
                    yield Frame(_rgb(picture), time_s)
            if self._capture is capture:  # else it was closed, and nothing is known
                self.ended_early = self._missing(frames, time_s + 1 / self._native_fps)
        finally:
            capture.release()

    def close(self) -> None:
        """Release the decoder; an iteration that is under way ends."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open(self) -> cv2.VideoCapture:
        if not os.path.exists(self.path):
            raise SourceError(f"{self._name} does not exist")
        if self._name != str(self.path):
            # OpenCV crashes on such a name.
            raise SourceError(f"cannot open {self._name}", required="a name in UTF-8")
        if os.path.isfile(self.path) and os.path.getsize(self.path) == 0:
            raise SourceError(f"{self._name} is empty", found="0 bytes", fix=_CHECK_VIDEO)
        with quiet_opencv():
            # An absolute path is never taken for an address or a protocol.
            capture = cv2.VideoCapture(os.path.abspath(self.path))
        if not capture.isOpened():
            raise SourceError(f"{self._name} cannot be read as a video", fix=_CHECK_VIDEO)
        return capture

    def _missing(self, seen_frames: int, seen_s: float) -> str | None:
        """What the container promised and did not hold, beyond what containers get wrong.

        Counts are often estimates (duration times mean rate, the duration that of a longer sound
        track), so frames and seconds must both be missing: a tenth, two frames at least, two
        seconds at most.
        """
        promised_s = self._promised_frames / self._native_fps
        tolerance_s = min(max(0.1 * promised_s, 2 / self._native_fps), 2.0)
        missing_s = promised_s - max(seen_s, seen_frames / self._native_fps)
        if missing_s <= tolerance_s:
            return None
        return f"{self._name} broke off after {seen_s:.1f} of {promised_s:.1f} s"


class ImageFolder:
    """The images of a folder in natural order (img2 before img10), of any sizes.

    Args:
        path: of the folder; ``IMAGE_SUFFIXES`` count, hidden files do not.
        fps: image i is at i/fps seconds; None for one image per second.

    Raises:
        SourceError: ``fps`` is not positive and finite, the folder is missing or holds no image.
            While iterating: an image cannot be read.
    """

    ended_early: str | None = None
    """Always None: an image that is missing at the end cannot be known."""

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        _check_fps(fps)
        self.path = Path(path)
        self.fps = 1.0 if fps is None else fps
        self.images = _image_paths(self.path)

    def __enter__(self) -> ImageFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.images):
            yield Frame(_read_image(path), index / self.fps)

    def close(self) -> None:
        """Nothing to release: no file is held open between images."""


Source = VideoFile | ImageFolder


def open_source(path: str | Path, fps: float | None = None) -> Source:
    """An :class:`ImageFolder` for a folder, a :class:`VideoFile` for anything else.

    Raises:
        SourceError: as of the two classes.
    """
    return ImageFolder(path, fps) if os.path.isdir(path) else VideoFile(path, fps)


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """What OpenCV and FFmpeg would write to stderr is dropped: the caller raises an error instead.

    FFmpeg's level is read from the environment once, when a process opens its first video.
    """
    variable = "OPENCV_FFMPEG_LOGLEVEL"
    with _logging_lock:
        level = cv2.utils.logging.getLogLevel()
        inherited = variable in os.environ
        os.environ.setdefault(variable, "-8")  # AV_LOG_QUIET
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(level)
            if not inherited:
                del os.environ[variable]


class _Clock:
    """Times that grow from frame to frame, whatever the container says."""

    def __init__(self, native_fps: float) -> None:
        self._step_s = 1 / native_fps
        self._last_s: float | None = None

    def stamp(self, position_ms: float) -> float:
        """Seconds of the next frame: its own timestamp, or one step on where there is none."""
        known = math.isfinite(position_ms) and position_ms >= 0
        time_s = position_ms / 1000 if known else 0.0
        if self._last_s is not None and time_s <= self._last_s:
            time_s = self._last_s + self._step_s
        self._last_s = time_s
        return time_s


class _Sampler:
    """Takes the first frame at or after every k/fps seconds."""

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._next_index = 0

    def takes(self, time_s: float) -> bool:
        if self._fps is None:
            return True
        index = math.floor((time_s + _TIME_RESOLUTION_S) * self._fps)
        if index < self._next_index:
            return False
        self._next_index = index + 1
        return True


def _image_paths(folder: Path) -> tuple[Path, ...]:
    try:
        paths = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        ]
    except FileNotFoundError:
        raise SourceError(f"{_printable(folder)} does not exist") from None
    except OSError as error:
        raise SourceError(f"cannot read {_printable(folder)}", found=error.strerror) from None
    if not paths:
        raise SourceError(
            f"{_printable(folder)} holds no image",
            required=f"files ending in {', '.join(IMAGE_SUFFIXES)}",
        )
    return tuple(sorted(paths, key=_natural_key))


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    """Digits compare as numbers, letters without case; the name itself breaks ties."""
    parts = re.split("([0-9]+)", path.name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    picture, found = None, "damaged, or not an image"
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        with quiet_opencv():
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError as error:
        found = str(error.strerror)
    except cv2.error as error:
        found = error.err
    if picture is None:
        raise SourceError(
            f"cannot read the image {_printable(path)}",
            found=found,
            fix="Remove or replace the file.",
        )
    return _rgb(picture)


def _rgb(picture: cv2.typing.MatLike) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _check_fps(fps: float | None) -> None:
    if fps is not None and not 0 < fps < math.inf:
        raise SourceError("fps is out of range", required="above 0 and finite", found=fps)


def _printable(path: str | Path) -> str:
    """The path with whatever is not UTF-8 replaced, so that a message can always be printed."""
    return os.fsencode(path).decode("utf-8", "replace")
