"""What OpenCV hands out, as RGB pictures, and OpenCV without a voice."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from hermes_edge.sources.base import Image, SourceCounts

MOST_BAD_FRAMES = 30
# Nothing more comes of a source that has let its own time-out pass.
_QUICK_S = 1.0

# Reentrant: the thread that holds it may collect an iteration that was left, which takes it, too.
_lock = threading.RLock()
_levels_before: list[int] = []
_variable_users: Counter[str] = Counter()


def rgb(picture: Any) -> Image | None:
    """A new uint8 [height, width, 3], RGB, or None for what is no picture.

    Grey, BGR and BGRA of 8 or 16 bits are pictures; alpha is dropped, and of 16 bits the upper
    eight stay, as OpenCV's own decoders have it: a sensor that fills 12 of them stays dark.
    """
    if not isinstance(picture, np.ndarray) or picture.size == 0:
        return None
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    if picture.dtype != np.uint8:
        return None
    channels = 1 if picture.ndim == 2 else picture.shape[2] if picture.ndim == 3 else 0
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if channels not in codes:
        return None
    return np.asarray(cv2.cvtColor(picture, codes[channels]), np.uint8)


def grab(capture: cv2.VideoCapture, counts: SourceCounts) -> bool:
    """Whether there is a frame. Where the decoder refuses one, it is counted as bad, and the next
    is asked for; a source at its end refuses again and again."""
    for refused in range(MOST_BAD_FRAMES):
        asked_s = time.monotonic()
        if capture.grab():
            counts.frames_read += refused
            counts.bad_frames += refused
            return True
        if time.monotonic() - asked_s > _QUICK_S:
            return False
    return False


def retrieved(capture: cv2.VideoCapture) -> Image | None:
    """The picture of the frame that was grabbed last, or None where there is none."""
    try:
        whole, picture = capture.retrieve()
        return rgb(picture) if whole else None
    except cv2.error:  # a frame whose buffer does not fit its announced size
        return None


def printable(text: str | os.PathLike[str]) -> str:
    """With whatever is not UTF-8 replaced, so that a message can always be printed."""
    return os.fsencode(text).decode("utf-8", "replace")


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """What OpenCV and FFmpeg would write to stderr is dropped: the caller raises an error instead.

    Of the whole process, until the last of those who ask for it is done. FFmpeg's level is read
    from the environment once, when a process opens its first video.
    """
    with environment_default("OPENCV_FFMPEG_LOGLEVEL", "-8"):  # AV_LOG_QUIET
        with _lock:
            _levels_before.append(cv2.utils.logging.getLogLevel())
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            with _lock:
                # The user's own level is the first on the list, whoever leaves last.
                level = _levels_before.pop()
                if not _levels_before:
                    cv2.utils.logging.setLogLevel(level)


@contextmanager
def environment_default(name: str, value: str) -> Iterator[None]:
    """A variable for OpenCV to read, where the user has set none; gone with its last user."""
    with _lock:
        ours = _variable_users[name] > 0 or name not in os.environ
        if ours:
            _variable_users[name] += 1
            os.environ[name] = value
    try:
        yield
    finally:
        if ours:
            with _lock:
                _variable_users[name] -= 1
                if _variable_users[name] == 0:
                    os.environ.pop(name, None)
