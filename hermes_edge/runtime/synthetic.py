"""A small seeded video of moving shapes, for demonstrations and tests without a download."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.runtime.sources import quiet_opencv

_SCENE_S = 4.0
_SHAPES = ("circle", "square", "triangle")
# Blue, green, red: the order in which OpenCV writes.
_COLOURS = ((40, 40, 220), (60, 180, 60), (220, 90, 40), (40, 200, 230), (200, 60, 180))
_GREYS = (30, 225, 105, 165)


def write_synthetic_video(
    path: str | Path,
    seconds: float,
    fps: float,
    seed: int = 0,
    size: tuple[int, int] = (320, 240),
) -> None:
    """Write a motion JPEG AVI, which every OpenCV writes and reads.

    A scene lasts four seconds; shape, colour and background change from each to the next. Equal
    arguments give equal frames.

    Args:
        path: of the file, which is replaced; a name ending in ``.avi``.
        seconds: length of the video; at least one frame is written.
        size: width and height in pixels, at least 32 each.

    Raises:
        SettingsError: an argument is out of range.
        StorageError: the file cannot be written, or not completely.
    """
    for name, value, required, fits in (
        ("video file", Path(path).name, "a name ending in .avi", Path(path).suffix == ".avi"),
        ("seconds", seconds, "above 0 and finite", 0 < seconds < math.inf),
        ("fps", fps, "above 0 and finite", 0 < fps < math.inf),
        ("seed", seed, "0 or more", seed >= 0),
        ("size", f"{size[0]}x{size[1]}", "at least 32x32 pixels", min(size) >= 32),
    ):
        if not fits:
            raise SettingsError(f"{name} is out of range", required=required, found=value)
    frames = max(round(seconds * fps), 1)
    target = os.path.abspath(path)
    with quiet_opencv():
        writer = cv2.VideoWriter(target, cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    for index in range(frames if writer.isOpened() else 0):
        writer.write(_picture(index / fps, seed, size))
    writer.release()
    # The writer reports no error, but a file that was cut short lacks its frame count.
    with quiet_opencv():
        written = max(round(cv2.VideoCapture(target).get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    if written != frames:
        raise StorageError(
            f"cannot write {path}",
            required=f"{frames} frames",
            found=f"{written} frames",
            fix="Check that the folder exists and is writable, and that the disk has room.",
        )


def _picture(time_s: float, seed: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """One frame, BGR [height, width, 3]."""
    scene, phase = divmod(time_s, _SCENE_S)
    radius = min(size) // 6
    index = int(scene) + seed
    picture = np.full((*size[::-1], 3), _GREYS[index % len(_GREYS)], np.uint8)
    room = np.array(size) - 2 * radius
    start, stop = np.random.default_rng(index).random((2, 2))
    x, y = (radius + room * (start + (stop - start) * phase / _SCENE_S)).astype(int).tolist()
    colour, shape = _COLOURS[index % len(_COLOURS)], _SHAPES[index % len(_SHAPES)]
    if shape == "circle":
        cv2.circle(picture, (x, y), radius, colour, cv2.FILLED)
    elif shape == "square":
        cv2.rectangle(picture, (x - radius, y - radius), (x + radius, y + radius), colour, -1)
    else:
        corners = np.array([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)])
        cv2.fillPoly(picture, [corners.astype(np.int32)], colour)
    return picture
