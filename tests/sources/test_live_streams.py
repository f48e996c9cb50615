"""Live streams from real servers that fail in the ways that servers fail."""

from __future__ import annotations

import itertools
import logging
import signal
import socket
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hermes_edge.errors import SourceError
from hermes_edge.sources import Capture, Frame, UrlStream
from hermes_edge.sources.reconnect import Backoff

if TYPE_CHECKING:
    from tests.sources.conftest import Serve

EVERY_RTSP = pytest.mark.parametrize("serve_rtsp", ["gstreamer", "rtsp-rs"], indirect=True)
GSTREAMER = pytest.mark.parametrize("serve_rtsp", ["gstreamer"], indirect=True)
READ_TIMEOUT_S = 1.0
PATIENCE_S = 20.0


def stream(url: str, fps: float | None = None) -> UrlStream:
    backoff = Backoff(first_s=0.1, most_s=0.3, least_s=0.05)
    return UrlStream(url, fps, open_timeout_s=5, read_timeout_s=READ_TIMEOUT_S, backoff=backoff)


def take(capture: Capture, count: int) -> list[Frame]:
    """The next frames; a test fails that waits too long for them."""
    frames = []
    for _ in range(count):
        frame = capture.next_frame(PATIENCE_S)
        assert frame is not None
        frames.append(frame)
    return frames


def drain(capture: Capture) -> None:
    """What waits; of a stream that is lost, nothing follows."""
    while capture.next_frame(0) is not None:
        pass


def wait_until_lost(capture: Capture, caplog: pytest.LogCaptureFixture) -> float:
    """Seconds until the loss is logged; what has come before is taken out."""
    begin_s = time.monotonic()
    while not any(": lost: " in text for text in caplog.messages):
        assert time.monotonic() - begin_s < PATIENCE_S
        capture.next_frame(0.05)
    lost_s = time.monotonic() - begin_s
    drain(capture)
    return lost_s


def assert_growing(frames: list[Frame]) -> None:
    assert all(a.time_s < b.time_s for a, b in itertools.pairwise(frames))


def test_frames_of_an_http_stream(serve_http: Serve) -> None:
    server = serve_http(fps=20)
    began_s = time.time()
    with Capture(stream(server.url)) as capture:
        frames = take(capture, 30)
    assert frames[0].time_s == 0
    assert_growing(frames)
    # As many seconds as have passed, by both clocks; the first few frames come at once.
    assert frames[-1].time_s == pytest.approx(frames[-1].wall_s - frames[0].wall_s, abs=0.1)
    assert 0.5 < frames[-1].time_s < time.time() - began_s
    for frame in frames:
        assert frame.image.shape == (64, 96, 3)
        assert began_s < frame.wall_s < time.time()
    assert np.ptp(frames[0].image) > 100
    assert (frames[0].image != frames[-1].image).any()


def test_sampling_by_arrival(serve_http: Serve) -> None:
    server = serve_http(fps=20)
    with Capture(stream(server.url, fps=4)) as capture:
        frames = take(capture, 5)
        counters = capture.counters()
    for index, frame in enumerate(frames):
        # Frames are 50 ms apart, and the machine may be busy.
        assert index / 4 - 0.001 <= frame.time_s < (index + 1) / 4
    assert counters.frames_read > 3 * counters.frames_sampled


def test_a_killed_server_is_found_again_and_the_gap_is_kept(
    serve_http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hermes_edge.sources")
    server = serve_http()
    with Capture(stream(server.url)) as capture:
        before = take(capture, 5)
        server.kill()
        wait_until_lost(capture, caplog)
        time.sleep(0.5)
        assert capture.counters().silent_s > 0.5
        assert not capture.ended
        server.start()
        after = take(capture, 5)
        counters = capture.counters()
    assert_growing(before + after)
    away_s = after[0].wall_s - before[-1].wall_s
    assert away_s > 0.5
    assert after[0].time_s - before[-1].time_s == pytest.approx(away_s, abs=0.1)
    assert counters.reconnects == 1
    assert 0.5 < counters.lost_s < away_s + 0.1
    events = [text.removeprefix(f"{server.url}: ").split()[0] for text in caplog.messages]
    assert events[:2] == ["opened", "lost:"]
    assert set(events[2:-1]) == {"reconnecting"}
    assert events[-1] == "back"


def test_a_short_stall_is_waited_out(serve_http: Serve) -> None:
    server = serve_http()
    with Capture(stream(server.url)) as capture:
        before = take(capture, 5)
        server.signal(signal.SIGSTOP)
        time.sleep(0.4 * READ_TIMEOUT_S)
        drain(capture)
        server.signal(signal.SIGCONT)
        after = take(capture, 5)
        assert capture.counters().reconnects == 0
    assert_growing(before + after)


def test_a_stalled_server_is_noticed_in_the_stated_time(
    serve_http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hermes_edge.sources")
    server = serve_http()
    with Capture(stream(server.url)) as capture:
        take(capture, 5)
        server.signal(signal.SIGSTOP)
        noticed_s = wait_until_lost(capture, caplog)
        assert capture.counters().silent_s >= READ_TIMEOUT_S
        server.kill()
        server.start()
        take(capture, 3)
        assert capture.counters().reconnects == 1
    assert noticed_s > 0.9 * READ_TIMEOUT_S
    assert noticed_s < READ_TIMEOUT_S + 5  # a busy machine is late
    (lost,) = [text for text in caplog.messages if ": lost: " in text]
    assert lost.startswith(f"{server.url}: lost: no more frames, the last one 1.")


def test_a_throttled_server_gives_fewer_frames_and_true_times(serve_http: Serve) -> None:
    server = serve_http(fps=10, pace=0.4)
    with Capture(stream(server.url)) as capture:
        take(capture, 5)  # sent ahead
        frames = take(capture, 6)
        assert capture.counters().reconnects == 0
    passed_s = frames[-1].wall_s - frames[0].wall_s
    assert passed_s > 5 / 10 / 0.4 * 0.7
    assert frames[-1].time_s - frames[0].time_s == pytest.approx(passed_s, abs=0.1)


def test_closing_while_the_source_hangs_is_prompt(serve_http: Serve) -> None:
    server = serve_http()
    source = UrlStream(server.url, read_timeout_s=60)
    capture = Capture(source)
    take(capture, 3)
    server.signal(signal.SIGSTOP)
    drain(capture)
    begin_s = time.monotonic()
    capture.close()
    assert time.monotonic() - begin_s < 5
    assert capture.ended
    assert capture.next_frame() is None
    server.kill()  # so that the thread, left to its time-out, ends now
    capture._thread.join(PATIENCE_S)
    assert not capture._thread.is_alive()


def test_closing_while_it_reconnects_is_prompt(
    serve_http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hermes_edge.sources")
    server = serve_http()
    source = UrlStream(server.url, backoff=Backoff(first_s=600, least_s=600))
    with Capture(source) as capture:
        take(capture, 1)
        server.kill()
        wait_until_lost(capture, caplog)
    assert not capture._thread.is_alive()


def test_a_silent_server_holds_up_no_other_stream(serve_http: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        waiting = Capture(UrlStream(url, open_timeout_s=120))
        connection, _ = silent.accept()  # it is being opened
        with connection:
            with Capture(stream(serve_http().url)) as capture:
                take(capture, 3)
            assert not waiting.ended
            begin_s = time.monotonic()
            waiting.close()
            assert time.monotonic() - begin_s < 5
    waiting._thread.join(PATIENCE_S)
    assert not waiting._thread.is_alive()


class Told(Backoff):
    """Writes down how long connections have lasted."""

    def __init__(self) -> None:
        super().__init__(first_s=0.1, most_s=0.1)
        self.lasted_s: list[float] = []

    def connection_lasted(self, seconds: float) -> None:
        self.lasted_s.append(seconds)


def test_a_connection_has_lasted_until_its_last_frame(
    serve_http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Not until its silence was noticed, which may take longer than a connection has to last."""
    server, backoff = serve_http(), Told()
    with Capture(UrlStream(server.url, read_timeout_s=READ_TIMEOUT_S, backoff=backoff)) as capture:
        frames = take(capture, 5)
        server.signal(signal.SIGSTOP)
        while not backoff.lasted_s:
            frame = capture.next_frame(0.1)
            frames += [] if frame is None else [frame]
        while (frame := capture.next_frame(0)) is not None:
            frames.append(frame)
    assert 0 <= backoff.lasted_s[0] - frames[-1].time_s < 0.5 * READ_TIMEOUT_S


@pytest.mark.parametrize("scheme", ["udp", "rtp"])
def test_an_address_that_nobody_sends_to(scheme: str) -> None:
    """Whether something listens on the TCP port of this number has nothing to do with it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"{scheme}://127.0.0.1:{other.getsockname()[1]}"
        with UrlStream(url, open_timeout_s=1) as source, pytest.raises(SourceError) as refused:
            next(source.grabs())
    assert str(refused.value) == (
        f"{url} gives no video: required a stream within 1 s, found no packet with video. "
        "Check address, port, firewall and sender."
    )


@EVERY_RTSP
def test_a_throttled_rtsp_camera_is_not_lost(serve_rtsp: Serve) -> None:
    server = serve_rtsp()
    with Capture(stream(server.url)) as capture:
        frames = take(capture, 5)
        for _ in range(5):  # a fifth of the time
            server.signal(signal.SIGSTOP)
            time.sleep(0.2)
            server.signal(signal.SIGCONT)
            time.sleep(0.05)
        while (frame := capture.next_frame(0)) is not None:
            frames.append(frame)
        frames += take(capture, 3)
        assert capture.counters().reconnects == 0
    assert_growing(frames)
    passed_s = frames[-1].wall_s - frames[0].wall_s
    assert frames[-1].time_s - frames[0].time_s == pytest.approx(passed_s, abs=0.1)


@EVERY_RTSP
def test_an_rtsp_camera_is_lost_and_found(
    serve_rtsp: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hermes_edge.sources")
    server = serve_rtsp()
    with Capture(stream(server.url)) as capture:
        before = take(capture, 5)
        server.signal(signal.SIGSTOP)
        assert wait_until_lost(capture, caplog) < READ_TIMEOUT_S + 5
        server.kill()
        server.start()
        after = take(capture, 5)
        counters = capture.counters()
    assert_growing(before + after)
    gap_s = after[0].time_s - before[-1].time_s
    assert gap_s == pytest.approx(after[0].wall_s - before[-1].wall_s, abs=0.1)
    assert gap_s > READ_TIMEOUT_S
    assert counters.reconnects == 1
    assert before[0].image.shape == (64, 96, 3)


@GSTREAMER
def test_an_rtsp_camera_with_a_password(serve_rtsp: Serve) -> None:
    server = serve_rtsp(10, "viewer", "s3cret")
    with Capture(stream(server.url)) as capture:
        take(capture, 3)
    with (
        Capture(stream(server.url.replace("s3cret", "wr0ng"))) as capture,
        pytest.raises(SourceError) as refused,
    ):
        capture.next_frame(PATIENCE_S)
    assert str(refused.value) == (
        f"rtsp://***@127.0.0.1:{server.port}/stream gives no video: required a stream within 5 s, "
        "found a server that answers, and no video. Check address, path, user and password."
    )


def test_a_source_that_insists_waits_for_a_server_that_is_not_there_yet(
    serve_http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve_http(fps=20)
    server.kill()
    source = stream(server.url)
    source.insists = True
    with caplog.at_level(logging.INFO, "hermes_edge.sources"), Capture(source) as capture:
        assert capture.next_frame(0.5) is None
        assert not capture.ended
        server.start()
        frames = take(capture, 5)
        counters = capture.counters()
    assert frames[0].time_s == 0
    assert_growing(frames)
    assert any(": not there yet: " in message for message in caplog.messages)
    assert counters.reconnects == 1
    assert counters.lost_s >= 0.5


def test_a_source_that_insists_can_be_closed_before_it_is_there(serve_http: Serve) -> None:
    server = serve_http(fps=20)
    server.kill()
    source = stream(server.url)
    source.insists = True
    with Capture(source) as capture:
        assert capture.next_frame(0.3) is None
    assert capture.ended
