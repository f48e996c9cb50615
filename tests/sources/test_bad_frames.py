"""Frames that are no pictures, or not the ones that came before, from real decoders."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from hermes_edge.errors import SourceError
from hermes_edge.sources import Capture, Counters, LiveSource, UrlStream, pictures
from hermes_edge.sources.pictures import MOST_BAD_FRAMES, quiet_opencv, rgb
from hermes_edge.sources.reconnect import Backoff

PATIENCE_S = 20.0


def quick() -> Backoff:
    return Backoff(first_s=0.05, most_s=0.1, least_s=0.01)


def test_grey_and_transparent_and_deep_pictures_become_rgb() -> None:
    grey = np.full((4, 6), 77, np.uint8)
    blue = np.zeros((4, 6, 3), np.uint8)
    blue[..., 0] = 200
    alpha = np.dstack([blue, np.zeros((4, 6), np.uint8)])
    for picture, expected in (
        (grey, (77, 77, 77)),
        (grey[..., None], (77, 77, 77)),
        (blue, (0, 0, 200)),
        (alpha, (0, 0, 200)),
        (grey.astype(np.uint16) << 8, (77, 77, 77)),
        (np.full((4, 6), 4095, np.uint16), (15, 15, 15)),  # 12 bits stay dark
        (np.full((4, 6, 3), 65535, np.uint16), (255, 255, 255)),
    ):
        image = rgb(picture)
        assert image is not None
        assert image.dtype == np.uint8
        assert image.shape == (4, 6, 3)
        assert tuple(image[2, 3]) == expected


@pytest.mark.parametrize(
    "picture",
    [
        None,
        np.zeros((0, 6, 3), np.uint8),
        np.zeros((4, 6, 2), np.uint8),
        np.zeros((4, 6, 5), np.uint8),
        np.zeros((4, 6, 3), np.float32),
        np.zeros(24, np.uint8),
    ],
)
def test_what_is_no_picture(picture: npt.NDArray[np.uint8] | None) -> None:
    assert rgb(picture) is None


class MotionJpeg(LiveSource):
    """An AVI, over and over, read by OpenCV's own decoder, which hands out nothing where a JPEG is
    damaged, as it does for a camera's."""

    def __init__(self, path: Path) -> None:
        super().__init__("camera", None, quick(), read_timeout_s=60)
        self._path = path

    def _open(self) -> cv2.VideoCapture:
        return cv2.VideoCapture(str(self._path), cv2.CAP_OPENCV_MJPEG)

    def _refusal(self) -> SourceError:
        return SourceError("no camera")


def write_damaged(path: Path, frames: int, damaged: range) -> None:
    with quiet_opencv():
        writer = cv2.VideoWriter(
            str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48)
        )
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 10 + index, np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    start = -1
    for index in range(frames):
        start = data.index(b"\xff\xd8\xff", start + 1)
        if index in damaged:
            data[start : start + 300] = bytes(300)
    path.write_bytes(data)


def test_damaged_frames_are_skipped_and_counted(tmp_path: Path) -> None:
    write_damaged(tmp_path / "a.avi", 12, range(3, 7))
    with MotionJpeg(tmp_path / "a.avi") as source:
        frames = iter(source)
        levels = [round(next(frames).image.mean()) for _ in range(8)]
        assert levels == pytest.approx([10, 11, 12, 17, 18, 19, 20, 21], abs=1)
        counts = source.counts
        assert (counts.frames_read, counts.bad_frames, counts.reconnects) == (12, 4, 0)


def test_an_iteration_that_was_left_is_collected_at_any_moment(tmp_path: Path) -> None:
    """Also by the thread that is within a change of what OpenCV says, or reads."""
    write_damaged(tmp_path / "a.avi", 2, range(0))
    ended = threading.Event()

    def leave() -> None:
        left = [MotionJpeg(tmp_path / "a.avi").grabs()]
        next(left[0])
        with pictures._lock:
            left.clear()
        ended.set()

    threading.Thread(target=leave, daemon=True).start()
    assert ended.wait(PATIENCE_S)


def test_many_damaged_frames_in_a_row_are_a_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_damaged(tmp_path / "a.avi", 60, range(5, 60))
    with Capture(MotionJpeg(tmp_path / "a.avi"), "block", ring_frames=1) as capture:
        assert all(capture.next_frame(PATIENCE_S) is not None for _ in range(6))
        assert capture.counters().bad_frames == MOST_BAD_FRAMES
        assert capture.counters().reconnects == 1
    assert f"camera: lost: {MOST_BAD_FRAMES} bad frames in a row" in caplog.messages


def test_a_bad_frame_leaves_its_turn_to_the_next(tmp_path: Path) -> None:
    write_damaged(tmp_path / "a.avi", 12, range(2))
    source = MotionJpeg(tmp_path / "a.avi")
    source.fps = 0.001  # one frame in all
    with source:
        assert next(iter(source)).image.mean() == pytest.approx(12, abs=1)


def jpeg(height: int, width: int, level: int, channels: int = 3) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, channels), level, np.uint8))[1].tobytes()


ServeJpegs = Callable[..., str]


@pytest.fixture
def serve_jpegs() -> Iterator[ServeJpegs]:
    """Motion JPEG over HTTP, as IP cameras send it: the given pictures, then silence, or the end
    of the connection."""
    servers: list[http.server.ThreadingHTTPServer] = []
    done = threading.Event()

    def serve(pictures: list[bytes], *, every_s: float = 0.02, ends: bool = False) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
                self.end_headers()
                for picture in pictures:
                    head = f"--next\r\nContent-Length: {len(picture)}\r\n"
                    kind = "Content-Type: image/jpeg\r\n\r\n"
                    self.wfile.write((head + kind).encode() + picture + b"\r\n")
                    time.sleep(every_s)
                if not ends:
                    done.wait(PATIENCE_S)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/video"

    yield serve
    done.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def levels(url: str, count: int) -> tuple[list[float], UrlStream]:
    source = UrlStream(url, open_timeout_s=5, read_timeout_s=1, backoff=quick())
    with Capture(source, "block") as capture:
        frames = [capture.next_frame(PATIENCE_S) for _ in range(count)]
    assert all(frame is not None and frame.image.shape[2] == 3 for frame in frames)
    return [round(frame.image.mean()) for frame in frames if frame is not None], source


def test_a_camera_that_changes_its_size(serve_jpegs: ServeJpegs) -> None:
    sizes = [(48, 64), (48, 64), (64, 96), (64, 96), (20, 30), (48, 64)]
    url = serve_jpegs([jpeg(*size, level) for level, size in enumerate(sizes, 100)])
    assert levels(url, 5)[0] == pytest.approx(range(100, 105), abs=1)


def test_a_grey_camera(serve_jpegs: ServeJpegs) -> None:
    url = serve_jpegs([jpeg(48, 64, level, channels=1) for level in range(100, 106)])
    assert levels(url, 5)[0] == pytest.approx(range(100, 105), abs=1)


def test_single_frames_that_no_decoder_takes_are_skipped_and_counted(
    serve_jpegs: ServeJpegs,
) -> None:
    """Without a new connection, whose back-off would grow from one such frame to the next."""
    cut = jpeg(48, 64, 200)[:200]
    png = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    bad = iter([cut, b"", b"rubbish" * 40, png])
    # The first one of all, two in a row, one.
    pictures = [
        next(bad) if index in (0, 4, 5, 9) else jpeg(48, 64, 100 + index) for index in range(14)
    ]
    given, source = levels(serve_jpegs(pictures), 9)
    assert given == pytest.approx([101, 102, 103, 106, 107, 108, 110, 111, 112], abs=1)
    assert (source.counts.bad_frames, source.counts.reconnects) == (4, 0)


def test_a_camera_that_sends_rubbish_is_connected_again(serve_jpegs: ServeJpegs) -> None:
    url = serve_jpegs([jpeg(48, 64, level) for level in range(100, 105)] + [b"rubbish" * 40])
    given, source = levels(url, 6)
    assert given[:4] == pytest.approx(range(100, 104), abs=1)
    assert given[-1] in range(99, 103)
    assert source.counts.reconnects >= 1


def lost(url: str, caplog: pytest.LogCaptureFixture) -> tuple[list[str], Counters]:
    """Why a stream was lost, and what was counted until then."""
    source = UrlStream(url, read_timeout_s=2, backoff=Backoff(first_s=600, least_s=600))
    deadline_s = time.monotonic() + PATIENCE_S
    with Capture(source, "block") as capture:
        while not (why := [text for text in caplog.messages if ": lost: " in text]):
            assert time.monotonic() < deadline_s
            capture.next_frame(0.05)
        return [text.removeprefix(f"{url}: lost: ") for text in why], capture.counters()


def test_a_camera_that_sends_rubbish_alone_is_lost_by_its_bad_frames(
    serve_jpegs: ServeJpegs, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = [jpeg(48, 64, level) for level in range(100, 111)]
    url = serve_jpegs(pictures + [b"rubbish" * 40] * 60, every_s=0.05)
    why, counters = lost(url, caplog)
    assert why == [f"{MOST_BAD_FRAMES} bad frames in a row"]
    assert counters.bad_frames >= MOST_BAD_FRAMES  # where two come at once, one is not slow
    assert counters.frames_read - counters.bad_frames == 11


@pytest.mark.parametrize(("ends", "bad"), [(True, range(1, 9)), (False, range(8, 9))])
def test_bad_frames_before_an_end_are_counted(
    serve_jpegs: ServeJpegs, caplog: pytest.LogCaptureFixture, ends: bool, bad: range
) -> None:
    """Of a connection that ends, the last refusal is its end; one that is silent refused all."""
    pictures = [jpeg(48, 64, level) for level in range(100, 103)]
    url = serve_jpegs(pictures + [b"rubbish" * 40] * 8, every_s=0.1, ends=ends)
    (why,), counters = lost(url, caplog)
    assert why.startswith("no more frames, the last one ")
    assert counters.bad_frames in bad


def test_the_end_of_a_connection_is_no_bad_frame(
    serve_jpegs: ServeJpegs, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = [jpeg(48, 64, level) for level in range(100, 105)]
    (why,), counters = lost(serve_jpegs(pictures, ends=True), caplog)
    assert why.startswith("no more frames, the last one ")
    assert (counters.frames_read, counters.bad_frames) == (5, 0)


def test_closing_a_stream_of_rubbish_is_prompt(serve_jpegs: ServeJpegs) -> None:
    url = serve_jpegs([jpeg(48, 64, 100)] * 2 + [b"rubbish" * 40] * 200, every_s=0.9)
    with Capture(UrlStream(url), "block") as capture:
        assert all(capture.next_frame(PATIENCE_S) is not None for _ in range(2))
    capture._thread.join(PATIENCE_S)
    assert not capture._thread.is_alive()


@pytest.mark.parametrize("pictures", [[], [b"rubbish" * 40] * 20])
def test_a_server_that_gives_no_picture(serve_jpegs: ServeJpegs, pictures: list[bytes]) -> None:
    url = serve_jpegs(pictures)
    with Capture(UrlStream(url, open_timeout_s=1, read_timeout_s=1)) as capture:
        with pytest.raises(SourceError) as refused:
            capture.next_frame(PATIENCE_S)
    assert str(refused.value) == (
        f"{url} gives no video: required a stream within 1 s, found a server that answers, "
        "and no video. Check address, path, user and password."
    )


def test_a_recording_is_no_live_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_damaged(tmp_path / "a.avi", 12, range(0))
    monkeypatch.chdir(tmp_path)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.avi"
        with Capture(UrlStream(url)) as capture, pytest.raises(SourceError) as refused:
            capture.next_frame(PATIENCE_S)
        server.shutdown()
    assert str(refused.value) == (
        f"{url} is a recording: required a live stream, found 12 frames. "
        "Download it and give the file."
    )
