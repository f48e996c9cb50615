"""The measurements behind the constants of hermes_edge/sources: python benchmarks/sources.py

How long FFmpeg keeps the first frame of a live stream, how many frames its decoder holds back, and
how far a cell of a thumbnail moves by noise and by a small object.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from hermes_edge.sources.pictures import environment_default, quiet_opencv
from hermes_edge.sources.streams import ENVIRONMENT

H264 = ["libx264", "-preset", "ultrafast", "-tune", "zerolatency"]


@contextmanager
def served(codec: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """MPEG-TS of 10 frames a second over HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/live.ts"
    source = ["-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10"]
    coded = ["-c:v", *codec, "-g", "10", "-f", "mpegts", "-flush_packets", "1", "-listen", "1", url]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "quiet", *source, *coded]
    server = subprocess.Popen(command)
    time.sleep(1)
    try:
        yield server, url
    finally:
        server.kill()
        server.wait()


def first_frame_s(options: str) -> float:
    """Until the first frame is there."""
    with served(H264) as (_, url), environment_default("OPENCV_FFMPEG_CAPTURE_OPTIONS", options):
        begin_s = time.monotonic()
        cv2.VideoCapture(url, cv2.CAP_FFMPEG).grab()
        return time.monotonic() - begin_s


def held_frames(codec: list[str], threads: int) -> int:
    """Frames that the decoder still hands out once the server has been stopped."""
    with served(codec) as (server, url):
        properties = [cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1000, cv2.CAP_PROP_N_THREADS, threads]
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, properties)
        end_s = time.monotonic() + 4
        while time.monotonic() < end_s:
            capture.grab()
        server.send_signal(signal.SIGSTOP)
        frames, timed_out = 0, False
        asked_s = time.monotonic()
        while capture.grab():
            timed_out |= time.monotonic() - asked_s > 0.9
            frames += timed_out
            asked_s = time.monotonic()
        return frames


def moved_levels(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> int:
    """Of the cell that moves most."""
    cells = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) for image in (a, b)]
    return int(np.abs(cells[0].astype(int) - cells[1].astype(int)).max())


def still(height: int, width: int) -> str:
    """Noise of sigma 10 under JPEG at quality 50, and a square that brightens by 60."""
    random = np.random.default_rng(0)
    coarse = random.integers(40, 200, (height // 8, width // 8, 3)).astype(np.uint8)
    wide = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    scene = np.asarray(wide, np.uint8)

    def noisy() -> npt.NDArray[np.uint8]:
        image = (scene + random.normal(0, 10, scene.shape)).clip(0, 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)

    noise = max(moved_levels(noisy(), noisy()) for _ in range(10))
    changes = []
    for share in (0.02, 0.03):
        side, moved = round(height * share), scene.astype(int)
        moved[height // 2 :, width // 2 :][:side, :side] += 60
        changes.append(moved_levels(scene, moved.clip(0, 255).astype(np.uint8)))
    return f"noise {noise}, a square of 2 % {changes[0]}, of 3 % {changes[1]}"


if __name__ == "__main__":
    os.environ.pop("OPENCV_FFMPEG_CAPTURE_OPTIONS", None)
    with quiet_opencv():
        print(f"first frame, OpenCV's options   {first_frame_s('rtsp_flags;prefer_tcp'):.2f} s")
        ours = ENVIRONMENT["OPENCV_FFMPEG_CAPTURE_OPTIONS"]
        print(f"first frame, {ours}   {first_frame_s(ours):.2f} s")
        for threads in (1, 2, 8):
            print(f"H.264 frames held by {threads} threads   {held_frames(H264, threads)}")
    for height, width in ((480, 640), (1080, 1920)):
        print(f"levels at {width} x {height}   {still(height, width)}")
