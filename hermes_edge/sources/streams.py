"""Streams by address, through FFmpeg, and GStreamer pipelines."""

from __future__ import annotations

import math
import os
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import cv2

from hermes_edge.arguments import seconds
from hermes_edge.errors import SourceError
from hermes_edge.sources.live import LiveSource
from hermes_edge.sources.pictures import environment_default, quiet_opencv
from hermes_edge.sources.reconnect import Backoff
from hermes_edge.sources.redact import check_address_text, redacted_pipeline, redacted_url

OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 5.0

# Read by OpenCV whenever it opens something. A file that is opened in the same moment reads them
# too, and gives the same frames, times and counts (AVI, Matroska, MP4, MPEG-2, H.264).
ENVIRONMENT = {
    # OpenCV's default, and no measuring of the frame rate, whose frames would all come late and at
    # once: the first one of an MPEG-TS at 10 fps is there after 0.02 s instead of 1.7 s (FFmpeg 8,
    # opencv-python 5.0, benchmarks/sources.py).
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "rtsp_flags;prefer_tcp|fpsprobesize;0",
    # OpenCV 4.8 to 5.0 opens one stream at a time otherwise: all wait for a server that is silent.
    "OPENCV_FFMPEG_IS_THREAD_SAFE": "1",
}

# With N threads FFmpeg's H.264 decoder hands out a frame when N more have come: it holds 9 with 8
# threads, 2 with one (benchmarks/sources.py).
_THREADS_VARIABLE = "OPENCV_FFMPEG_THREADS"

# OpenCV takes timeouts in milliseconds, as an int of C; 0 is none at all.
_MOST_TIMEOUT_S = 2_000_000.0

# Without a connection: whether somebody sends is seen by what comes alone.
DATAGRAM_SCHEMES = ("udp", "rtp")
_TCP_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}


class UrlStream(LiveSource):
    """A stream by its address, read by FFmpeg; RTSP over TCP, or UDP where that is refused.

    ``OPENCV_FFMPEG_CAPTURE_OPTIONS`` and ``OPENCV_FFMPEG_THREADS`` are the user's: where they are
    set, they hold.

    Args:
        url: with user and password where they are needed; they are shown nowhere.
        fps: frames per second to give; None for every frame.
        open_timeout_s: for a connection to stand.
        read_timeout_s: without a frame, after which the stream counts as lost.
        backoff: between attempts to reconnect.

    Raises:
        SettingsError: an argument of another type, or a time that is not above 0.
        SourceError: ``fps`` is not positive and finite. While iterating: the first connection
            fails, or leads to a recording.
    """

    def __init__(
        self,
        url: str,
        fps: float | None = None,
        *,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        backoff: Backoff | None = None,
    ) -> None:
        check_address_text("url", url)
        self._open_timeout_s = seconds("open_timeout_s", open_timeout_s)
        super().__init__(redacted_url(url), fps, backoff, seconds("read_timeout_s", read_timeout_s))
        self._url = url
        self._properties = _timeouts(open_timeout_s, read_timeout_s)
        if _THREADS_VARIABLE not in os.environ:
            self._properties += [cv2.CAP_PROP_N_THREADS, 1]

    def _open(self) -> cv2.VideoCapture:
        with ExitStack() as defaults:
            for variable, value in ENVIRONMENT.items():
                defaults.enter_context(environment_default(variable, value))
            capture = cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, self._properties)
        # Of a stream without an end FFmpeg makes a negative count.
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if capture.isOpened() and frames > 0:
            capture.release()
            raise SourceError(
                f"{self.name} is a recording",
                required="a live stream",
                found=f"{frames:.0f} frames",
                fix="Download it and give the file.",
            )
        return capture

    def _refusal(self) -> SourceError:
        if self._url.partition(":")[0].lower() in DATAGRAM_SCHEMES:
            found, fix = "no packet with video", "Check address, port, firewall and sender."
        else:
            found, fix = _reachable(self._url), "Check address, path, user and password."
        return SourceError(
            f"{self.name} gives no video",
            required=f"a stream within {self._open_timeout_s:g} s",
            found=found,
            fix=fix,
        )


class Pipeline(LiveSource):
    """A GStreamer pipeline that ends in ``appsink``, where OpenCV was built with GStreamer.

    Args:
        pipeline: such as ``nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert
            ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1``.
        fps, open_timeout_s, read_timeout_s, backoff: as of :class:`UrlStream`.

    Raises:
        SettingsError: an argument of another type, or a time that is not above 0.
        SourceError: OpenCV has no GStreamer, the pipeline has no ``appsink``, or ``fps`` is not
            positive and finite. While iterating: the pipeline does not start.
    """

    def __init__(
        self,
        pipeline: str,
        fps: float | None = None,
        *,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        backoff: Backoff | None = None,
    ) -> None:
        check_address_text("pipeline", pipeline)
        open_timeout_s = seconds("open_timeout_s", open_timeout_s)
        read_timeout_s = seconds("read_timeout_s", read_timeout_s)
        super().__init__(redacted_pipeline(pipeline), fps, backoff, read_timeout_s)
        self._pipeline = pipeline
        self._timeouts = _timeouts(open_timeout_s, read_timeout_s)
        if "appsink" not in pipeline:
            raise SourceError(
                f"the pipeline {self.name} hands out no frames", required="appsink at its end"
            )
        with quiet_opencv():
            usable = cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)
        if not usable:
            raise SourceError(
                f"the pipeline {self.name} cannot be run",
                required="an OpenCV with GStreamer, as on Jetson",
                found=f"OpenCV {cv2.__version__} without it",
                fix="Packages from PyPI have none: use the system's OpenCV, a /dev/video device "
                "or a URL.",
            )

    def _open(self) -> cv2.VideoCapture:
        return cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER, self._timeouts)

    def _refusal(self) -> SourceError:
        return SourceError(
            f"the pipeline {self.name} gives no video",
            fix="Try it with gst-launch-1.0, with fakesink in place of appsink.",
        )


def _timeouts(open_timeout_s: float, read_timeout_s: float) -> list[int]:
    opening, reading = (
        math.ceil(1000 * min(timeout_s, _MOST_TIMEOUT_S))
        for timeout_s in (open_timeout_s, read_timeout_s)
    )
    return [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        opening,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        reading,
    ]


def _reachable(url: str) -> str:
    """What is known of a stream that FFmpeg could not open: FFmpeg itself tells OpenCV nothing."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _TCP_PORTS.get(parts.scheme)
    except ValueError:  # whose text quotes what may be a password
        host = port = None
    if host is None or port is None:
        return "no host and port that can be read"
    try:
        with socket.create_connection((host, port), timeout=3):
            return "a server that answers, and no video"
    except (socket.gaierror, UnicodeError):
        return "no such host"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return error.strerror or type(error).__name__
