"""Streams as video files that every OpenCV writes and reads."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2

from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.sources.pictures import quiet_opencv
from hermes_edge.synthetic.drawing import SIDE, draw_stream
from hermes_edge.synthetic.world import Stream


def write_video(path: str | Path, stream: Stream, fps: float = 1.0) -> None:
    """Write a stream as a motion JPEG AVI.

    Args:
        path: of the file, which is replaced; a name ending in ``.avi``.
        stream: all its frames are written.
        fps: frames per second; at 1, frame i is at second i.

    Raises:
        SettingsError: an argument is out of range.
        StorageError: the file cannot be written, or not completely.
    """
    for name, value, required, fits in (
        ("video file", Path(path).name, "a name ending in .avi", Path(path).suffix == ".avi"),
        ("fps", fps, "above 0 and finite", 0 < fps < math.inf),
    ):
        if not fits:
            raise SettingsError(f"{name} is out of range", required=required, found=value)
    target = os.path.abspath(path)
    with quiet_opencv():
        writer = cv2.VideoWriter(target, cv2.VideoWriter.fourcc(*"MJPG"), fps, (SIDE, SIDE))
    written = 0
    # Where it is not open, an older file of that name may still be there.
    if writer.isOpened():
        for frame in draw_stream(stream):
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
        # The writer reports no error, but a file that was cut short lacks its frame count.
        with quiet_opencv():
            written = max(round(cv2.VideoCapture(target).get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    if written != stream.frames:
        raise StorageError(
            f"cannot write {path}",
            required=f"{stream.frames} frames",
            found=f"{written} frames",
            fix="Check that the folder exists and is writable, and that the disk has room.",
        )
