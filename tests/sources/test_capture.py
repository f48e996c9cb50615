"""The capture thread, as it is: real files and a real clock, with consumers that are too slow."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from hermes_edge.errors import SettingsError, SourceError
from hermes_edge.sources import (
    BackPressure,
    Capture,
    Frame,
    GrabbedFrame,
    ImageFolder,
    Source,
    SourceCounts,
    VideoFile,
)
from hermes_edge.sources.pictures import quiet_opencv

PATIENCE_S = 20.0


def write_video(path: Path, frames: int = 40, still_from: int = 10**9) -> Path:
    with quiet_opencv():
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(frames):
        level = 20 + 5 * min(index, still_from) % 200
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


class Ticker(Source):
    """A live source that gives a frame every ``period_s`` of the real clock, ``frames`` in all."""

    ended_early = None

    def __init__(self, period_s: float, fps: float | None, frames: int = 10**9) -> None:
        self.name, self.fps, self.counts = "ticker", fps, SourceCounts()
        self._period_s, self._frames = period_s, frames
        self._closed = threading.Event()

    @property
    def live(self) -> bool:
        return True

    def grabs(self) -> Generator[GrabbedFrame, None, None]:
        begin_s = time.monotonic()
        for index in range(self._frames):
            if self._closed.wait(self._period_s):
                return
            self.counts.frames_read += 1
            now_s = time.monotonic() - begin_s
            picture = np.full((2, 2, 3), (index // 256, index % 256, 0), np.uint8)
            yield GrabbedFrame(now_s, time.time(), partial(np.copy, picture))

    def close(self) -> None:
        self._closed.set()


def finish(capture: Capture) -> None:
    """Wait for the thread's end."""
    capture._thread.join(PATIENCE_S)
    assert not capture._thread.is_alive()


@pytest.mark.parametrize("policy", [None, "every", "block"])
def test_of_a_file_no_sampled_frame_is_lost(tmp_path: Path, policy: BackPressure | None) -> None:
    path = write_video(tmp_path / "a.avi")
    with VideoFile(path, 5) as video:
        wanted = [frame.time_s for frame in video]
    with Capture(VideoFile(path, 5), policy, ring_frames=3) as capture:
        assert capture.policy == policy or "every"
        taken = []
        for frame in capture:
            taken.append(frame.time_s)
            time.sleep(0.01)
            assert capture.counters().waiting <= 3
        counters = capture.counters()
        assert capture.ended
    assert taken == wanted
    assert (counters.frames_read, counters.frames_sampled, counters.delivered) == (40, 20, 20)
    assert (counters.dropped, counters.still, counters.silent_s) == (0, 0, 0.0)


def test_the_reader_waits_for_room(tmp_path: Path) -> None:
    with Capture(VideoFile(write_video(tmp_path / "a.avi")), ring_frames=4) as capture:
        deadline = time.monotonic() + PATIENCE_S
        while capture.counters().frames_sampled < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1)
        counters = capture.counters()
        assert (counters.waiting, counters.frames_read) == (4, 5)
        # It is not the source that is silent.
        assert counters.silent_s == 0.0
    finish(capture)  # though it was waiting


@pytest.mark.parametrize(("period_s", "fps"), [(0.01, 50.0), (0.15, 20.0)])
def test_latest_gives_nothing_older_than_a_chunk_period(period_s: float, fps: float) -> None:
    """However slow the model is, and with a source that is quicker or slower than fps."""
    # Ages by the very readings that the capture has made: a busy machine does not bend them.
    read_s: dict[int, list[float]] = defaultdict(list)

    def clock() -> float:
        read_s[threading.get_ident()].append(time.monotonic())
        return read_s[threading.get_ident()][-1]

    chunk_period_s = 8 / fps
    ages_s: list[float] = []
    with Capture(Ticker(period_s, fps), ring_frames=8, clock=clock) as capture:
        assert capture.policy == "latest"
        for encode_s in (0, 0.02, 0.3, 0.7):
            time.sleep(encode_s)
            for _ in range(4):
                frame = capture.next_frame(PATIENCE_S)
                assert frame is not None
                taken_s = read_s[threading.get_ident()][-1]
                index = 256 * int(frame.image[0, 0, 0]) + int(frame.image[0, 0, 1])
                arrived_s = read_s[capture._thread.ident or 0][index]
                ages_s.append(taken_s - arrived_s)
        counters = capture.counters()
    assert 0 <= min(ages_s)
    assert 0.5 * chunk_period_s < max(ages_s) <= chunk_period_s
    assert counters.dropped > 0
    assert counters.frames_sampled == counters.dropped + counters.delivered + counters.waiting


def test_adaptive_lowers_the_rate_of_a_live_source() -> None:
    with Capture(Ticker(0.005, 100.0), "adaptive", ring_frames=8) as capture:
        for _ in range(12):
            assert capture.next_frame(PATIENCE_S) is not None
            time.sleep(0.05)
        fps = capture.counters().fps
    assert fps is not None
    assert 100 / 64 <= fps < 75


def test_adaptive_needs_a_rate(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refused:
        Capture(VideoFile(write_video(tmp_path / "a.avi")), "adaptive")
    assert str(refused.value) == ("adaptive has no rate to lower: required fps of the source")


def test_every_frame_of_a_live_source_or_an_error() -> None:
    with Capture(Ticker(0.005, None), "every", ring_frames=4) as capture:
        finish(capture)
        given = [capture.next_frame() for _ in range(4)]
        assert None not in given
        for _ in range(2):
            with pytest.raises(SourceError) as refused:
                capture.next_frame()
            assert str(refused.value) == (
                "ticker gives frames faster than they are encoded: required every frame, "
                "found 4 frames waiting and no room for more. "
                "Lower fps, or let frames go: latest or adaptive."
            )


def test_block_holds_a_live_source() -> None:
    with Capture(Ticker(0.001, None, frames=30), "block", ring_frames=4) as capture:
        taken = 0
        for _ in capture:
            taken += 1
            time.sleep(0.005)
    assert taken == 30


def test_an_error_comes_after_the_frames_before_it(tmp_path: Path) -> None:
    class Unplugged(VideoFile):
        def grabs(self) -> Generator[GrabbedFrame, None, None]:
            yield from super().grabs()
            raise SourceError("the disk is gone")

    with Capture(Unplugged(write_video(tmp_path / "a.avi", frames=2))) as capture:
        assert [capture.next_frame(PATIENCE_S) is None for _ in range(2)] == [False, False]
        with pytest.raises(SourceError, match="the disk is gone"):
            capture.next_frame(PATIENCE_S)
        assert capture.ended


def test_a_damaged_image_ends_no_folder(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "3.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4), np.uint8))
    (tmp_path / "2.png").write_bytes(b"no image")
    with Capture(ImageFolder(tmp_path)) as capture:
        assert [frame.time_s for frame in capture] == [0, 2]
        counters = capture.counters()
    assert (counters.frames_read, counters.frames_sampled, counters.bad_frames) == (3, 2, 1)


def test_a_fault_of_the_source_is_not_lost_in_the_thread() -> None:
    class Faulty(Ticker):
        def grabs(self) -> Generator[GrabbedFrame, None, None]:
            yield GrabbedFrame(0, 0, lambda: np.zeros((2, 2, 3), np.uint8))
            raise ZeroDivisionError("a fault")

    with Capture(Faulty(0, None)) as capture:
        assert capture.next_frame(PATIENCE_S) is not None
        with pytest.raises(ZeroDivisionError, match="a fault"):
            capture.next_frame(PATIENCE_S)


def test_a_consumer_of_several_streams_is_woken(tmp_path: Path) -> None:
    wake = threading.Event()
    slow = Capture(Ticker(0.1, None, frames=2), wake=wake)
    quick = Capture(Ticker(0.03, None, frames=4), wake=wake)
    with slow, quick:
        assert slow.oldest_wall_s is slow.oldest_age_s is None
        taken: list[tuple[Capture, Frame]] = []
        while not (slow.ended and quick.ended):
            assert wake.wait(PATIENCE_S)
            wake.clear()
            while waiting := [c for c in (slow, quick) if c.oldest_wall_s is not None]:
                first = min(waiting, key=lambda capture: capture.oldest_wall_s or 0)
                age_s = first.oldest_age_s
                assert age_s is not None
                assert age_s >= 0
                frame = first.next_frame(0)
                assert frame is not None
                taken.append((first, frame))
    assert [sum(capture is c for c, _ in taken) for capture in (slow, quick)] == [2, 4]


def test_no_frame_within_the_time() -> None:
    with Capture(Ticker(60, None)) as capture:
        assert capture.next_frame(0) is None
        assert capture.next_frame(0.02) is None
        assert not capture.ended
        assert capture.counters().silent_s >= 0.02
        begin_s = time.monotonic()
    assert time.monotonic() - begin_s < 5
    finish(capture)


def test_still_frames_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", frames=40, still_from=20)
    with Capture(VideoFile(path), skip_still=True) as capture:
        taken = [round(10 * frame.time_s) for frame in capture]
        counters = capture.counters()
    # 5 levels a frame: every third differs by more than 10, and nothing after frame 20.
    assert taken == [0, 3, 6, 9, 12, 15, 18]
    assert (counters.frames_sampled, counters.still) == (40, 33)


class Stepped(Ticker):
    """The same picture again and again, each time that the test takes a step."""

    def __init__(self, fps: float) -> None:
        super().__init__(0, fps)
        self._steps: queue.Queue[float | None] = queue.Queue()

    def step(self, time_s: float) -> None:
        self._steps.put(time_s)

    def grabs(self) -> Generator[GrabbedFrame, None, None]:
        while (time_s := self._steps.get()) is not None:
            self.counts.frames_read += 1
            yield GrabbedFrame(time_s, time.time(), lambda: np.zeros((2, 2, 3), np.uint8))

    def close(self) -> None:
        self._steps.put(None)


@pytest.mark.parametrize("policy", get_args(BackPressure))
@pytest.mark.parametrize("looks", [True, False])
def test_a_still_scene_is_shown_again_where_its_frame_was_dropped(
    policy: BackPressure, looks: bool
) -> None:
    """By the consumer that comes too late, or before it comes."""
    now_s, source = [0.0], Stepped(fps=2.0)

    def step(time_s: float) -> None:
        seen = capture.counters().frames_sampled
        source.step(time_s)
        deadline = time.monotonic() + PATIENCE_S
        while capture.counters().frames_sampled == seen:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    # A frame may wait for 2 s.
    with Capture(source, policy, ring_frames=4, skip_still=True, clock=lambda: now_s[0]) as capture:
        step(0)
        step(1)
        now_s[0] = 2.5
        if looks and policy == "latest":
            assert capture.next_frame(0) is None
        step(2)
        step(3)
        counters = capture.counters()
        frame = capture.next_frame(0)
        assert capture.next_frame(0) is None
    lost = policy == "latest"
    assert (counters.still, counters.dropped, counters.waiting) == (2 if lost else 3, lost, 1)
    assert counters.frames_sampled == counters.still + counters.dropped + counters.waiting
    assert frame is not None
    assert frame.time_s == (2 if lost else 0)


@pytest.mark.parametrize("ring_frames", [2.5, True, 0, -3])
def test_a_ring_of_no_size_is_refused_before_anything_is_read(ring_frames: Any) -> None:
    source = Ticker(0, None)
    with pytest.raises(SettingsError, match=r"^ring_frames is "):
        Capture(source, ring_frames=ring_frames)
    assert source.counts.frames_read == 0


def test_what_waits_may_be_smaller_than_the_picture(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "a.avi", frames=3))
    with Capture(video, prepare=lambda image: image[::8, ::8].copy()) as capture:
        assert [frame.image.shape for frame in capture] == [(6, 8, 3)] * 3


def test_a_process_ends_well_that_has_closed_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from hermes_edge.sources import Capture, VideoFile\n"
        "capture = Capture(VideoFile(sys.argv[1]), 'latest')\n"
        "assert capture.next_frame(20) is not None\n"
    )
    path = write_video(tmp_path / "a.avi", frames=3000)
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("policy", get_args(BackPressure))
def test_what_waits_at_the_end_is_counted_as_dropped(policy: BackPressure) -> None:
    capture = Capture(Ticker(0.001, 100.0), policy, ring_frames=4)
    assert capture.next_frame(PATIENCE_S) is not None
    while capture.counters().waiting < 3:
        time.sleep(0.001)
    capture.close()
    finish(capture)
    counters = capture.counters()
    assert (counters.delivered, counters.waiting) == (1, 0)
    assert counters.dropped >= 3
    assert counters.frames_sampled == counters.dropped + counters.delivered


def test_a_closed_capture_gives_nothing(tmp_path: Path) -> None:
    capture = Capture(VideoFile(write_video(tmp_path / "a.avi")))
    assert capture.next_frame(PATIENCE_S) is not None
    capture.close()
    capture.close()
    assert capture.ended
    assert capture.next_frame() is None
    finish(capture)
