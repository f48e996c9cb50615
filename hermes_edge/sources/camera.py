"""Cameras of this machine, through V4L2."""

from __future__ import annotations

import errno
import math
import os
import stat
from pathlib import Path

import cv2

from hermes_edge.arguments import path_of
from hermes_edge.errors import SourceError
from hermes_edge.sources.live import LiveSource
from hermes_edge.sources.pictures import printable
from hermes_edge.sources.reconnect import Backoff


class Camera(LiveSource):
    """A V4L2 device: USB, CSI, loopback.

    It counts as lost after OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT seconds without a frame; they are 10
    where the environment does not say otherwise.

    Args:
        device: such as ``/dev/video0``, or a name under ``/dev/v4l/by-id``, which stays the same
            when a camera is plugged in again.
        fps: frames per second to give; None for every frame.
        backoff: between attempts to find a lost camera again.

    Raises:
        SettingsError: an argument of another type.
        SourceError: ``fps`` is not positive and finite. While iterating: there is no such device,
            it is no camera, is not permitted, is in use, or gives no frame.
    """

    def __init__(
        self, device: str | Path, fps: float | None = None, *, backoff: Backoff | None = None
    ) -> None:
        path = path_of("device", device)
        # V4L2 has no frames left when it times out.
        super().__init__(printable(path), fps, backoff, read_timeout_s=math.inf)
        self._device = os.fspath(path)

    def _open(self) -> cv2.VideoCapture:
        try:
            if not stat.S_ISCHR(os.stat(self._device).st_mode):
                raise self._refusal()
            os.close(os.open(self._device, os.O_RDWR | os.O_NONBLOCK))
        except FileNotFoundError:
            cameras = sorted(printable(path) for path in Path("/dev").glob("video*"))
            found = ", ".join(cameras) if cameras else "no camera"
            raise SourceError(
                f"{self.name} does not exist", found=found, fix="Check that it is plugged in."
            ) from None
        except OSError as error:
            closed = error.errno in (errno.EACCES, errno.EPERM)
            fix = 'sudo usermod -aG video "$USER", then log in again' if closed else None
            raise SourceError(
                f"cannot open the camera {self.name}", found=error.strerror, fix=fix
            ) from None
        return cv2.VideoCapture(self._device, cv2.CAP_V4L2)

    def _refusal(self) -> SourceError:
        return SourceError(
            f"{self.name} gives no video",
            required="a V4L2 device that captures, and that no other program uses",
            fix="List them with: v4l2-ctl --list-devices (a USB camera's second node is metadata).",
        )
