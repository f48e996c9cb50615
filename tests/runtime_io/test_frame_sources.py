"""Videos, with real files written by OpenCV, cut short and damaged."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from hermes_edge.errors import SettingsError, SourceError
from hermes_edge.sources import VideoFile, open_source
from hermes_edge.sources.pictures import quiet_opencv
from tests.conftest import FFMPEG

CODECS = {".avi": "MJPG", ".mkv": "MJPG", ".mp4": "mp4v", ".m2v": "MPG2"}


def grey_level(index: int) -> int:
    return 20 + 4 * index % 200


def picture(index: int) -> npt.NDArray[np.uint8]:
    """Red grows with the index, blue stays: swapped channels would show."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 200, 60, grey_level(index)
    image[::2, ::3] += np.uint8(20)  # bytes to cut
    return image


def write_video(path: Path, frames: int = 40, fps: float = 10) -> Path:
    with quiet_opencv():
        code = cv2.VideoWriter.fourcc(*CODECS[path.suffix])
        writer = cv2.VideoWriter(str(path), code, fps, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(picture(index))
    writer.release()
    return path


def write_variable_rate(path: Path, ticks: list[int]) -> Path:
    """Packets of a constant-rate video, put at ``ticks`` tenths of a second."""
    constant = write_video(path.with_suffix(".mp4"), frames=len(ticks))
    reader = cv2.VideoCapture(str(constant), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, code, 10, (64, 48), [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1]
    )
    for tick in ticks:
        writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, float(tick == 0))
        writer.set(cv2.VIDEOWRITER_PROP_PTS, float(tick))
        writer.write(reader.read()[1])
    writer.release()
    return path


def cut_short(path: Path, share: float) -> Path:
    data = path.read_bytes()
    short = path.with_stem(path.stem + "_short")
    short.write_bytes(data[: int(len(data) * share)])
    return short


def times(path: Path, fps: float | None) -> list[float]:
    with open_source(path, fps) as source:
        return [frame.time_s for frame in source]


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_every_frame_in_rgb_with_its_time(tmp_path: Path, suffix: str) -> None:
    with VideoFile(write_video(tmp_path / f"a{suffix}")) as video:
        frames = list(video)
        assert video.ended_early is None
        assert (video.counts.frames_read, video.counts.bad_frames) == (40, 0)
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(40) / 10, atol=1e-9)
    for index, frame in enumerate(frames):
        assert frame.image.dtype == np.uint8
        red, green, blue = np.median(frame.image, axis=(0, 1))
        # Both codecs lose a few levels.
        assert red == pytest.approx(grey_level(index), abs=8)
        assert (green, blue) == (pytest.approx(60, abs=8), pytest.approx(200, abs=8))


@pytest.mark.parametrize("fps", [0.5, 1, 3, 7, 9.99, 10])
def test_sampling_takes_the_first_frame_at_or_after_each_multiple(
    tmp_path: Path, fps: float
) -> None:
    taken = times(write_video(tmp_path / "a.mkv"), fps)
    native = [tick / 10 for tick in range(40)]
    wanted = {
        min(time for time in native if time >= k / fps - 1e-3)
        for k in range(math.floor(3.9 * fps) + 1)
    }
    np.testing.assert_allclose(taken, sorted(wanted), atol=1e-9)


@pytest.mark.parametrize("fps", [None, 10.5, 25, 999.0])
def test_a_rate_above_the_native_one_gives_every_frame_once(
    tmp_path: Path, fps: float | None
) -> None:
    assert len(times(write_video(tmp_path / "a.avi"), fps)) == 40


def test_times_rounded_to_milliseconds_do_not_shift_the_sampling(tmp_path: Path) -> None:
    # Matroska holds 1/3 s as 333 ms, which is before 1/3 s.
    taken = times(write_video(tmp_path / "a.mkv", frames=90, fps=30), 3)
    np.testing.assert_allclose(taken, np.arange(9) / 3, atol=1e-3)


def test_a_variable_frame_rate_is_respected(tmp_path: Path) -> None:
    path = write_variable_rate(tmp_path / "a.mkv", [0, 1, 2, 30, 31, 60, 61, 62])
    np.testing.assert_allclose(times(path, None), [0, 0.1, 0.2, 3, 3.1, 6, 6.1, 6.2], atol=1e-3)
    np.testing.assert_allclose(times(path, 1), [0, 3, 6], atol=1e-3)
    with VideoFile(path, 1) as video:
        levels = [int(np.median(frame.image[..., 0])) for frame in video]
        # The container's estimate of 63 frames at 10 fps is no promise.
        assert video.ended_early is None
    np.testing.assert_allclose(levels, [grey_level(index) for index in (0, 3, 5)], atol=8)


def test_times_grow_where_the_container_has_none(tmp_path: Path) -> None:
    # A bare stream has no index and no count, and its last frame comes out without a time.
    path = write_video(tmp_path / "a.m2v", frames=60)
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
    reported = [capture.get(cv2.CAP_PROP_POS_MSEC) for _ in iter(capture.grab, False)]
    assert reported[-1] < reported[-2]
    with VideoFile(path) as video:
        taken = [frame.time_s for frame in video]
        assert video.ended_early is None
    np.testing.assert_allclose(taken[:-1], np.array(reported[:-1]) / 1000)
    assert 0 < taken[-1] - taken[-2] <= 0.1


def test_frames_are_decoded_as_they_are_asked_for(tmp_path: Path) -> None:
    with VideoFile(write_video(tmp_path / "a.avi")) as video:
        first = next(iter(video))
        assert first.time_s == 0
        rest = [frame.time_s for frame in itertools.islice(video, 3)]
        np.testing.assert_allclose(rest, [0, 0.1, 0.2], atol=1e-9)


def test_closing_ends_an_iteration_without_a_verdict(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "a.avi"))
    frames = iter(video)
    next(frames)
    video.close()
    assert list(frames) == []
    assert video.ended_early is None


def test_every_iteration_starts_at_the_beginning(tmp_path: Path) -> None:
    with VideoFile(write_video(tmp_path / "a.avi"), 2) as video:
        assert [f.time_s for f in video] == [f.time_s for f in video]


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_video_that_breaks_off_says_so(tmp_path: Path, suffix: str) -> None:
    short = cut_short(write_video(tmp_path / f"a{suffix}"), 0.5)
    frames = len(times(short, None))
    assert 10 < frames < 25
    with VideoFile(short, 1) as video:
        assert [frame.time_s for frame in video] == pytest.approx(range(math.ceil(frames / 10)))
        # Frames that were skipped count as seen.
        assert video.ended_early == f"{short} broke off after {frames / 10:.1f} of 4.0 s"


@pytest.mark.parametrize("damaged", [range(1), range(7, 8), range(20, 45)])
def test_a_video_goes_on_behind_frames_that_are_damaged(tmp_path: Path, damaged: range) -> None:
    path = write_video(tmp_path / "a.avi", frames=60)
    data = bytearray(path.read_bytes())
    start = -1
    for index in range(60):
        start = data.index(b"\xff\xd8\xff", start + 1)
        if index in damaged:
            data[start : start + 300] = bytes(300)
    path.write_bytes(data)
    with VideoFile(path) as video:
        seen = [(frame.time_s, int(frame.image[1, 1, 0])) for frame in video]
        assert video.ended_early is None
        assert (video.counts.frames_read, video.counts.bad_frames) == (60, len(damaged))
    whole = [n for n in range(60) if n not in damaged]
    assert [time_s for time_s, _ in seen] == pytest.approx([n / 10 for n in whole])
    assert [level for _, level in seen] == pytest.approx([grey_level(n) for n in whole], abs=12)


def test_the_last_frames_may_be_missing(tmp_path: Path) -> None:
    # Counts of containers are off by a frame or two.
    short = cut_short(write_video(tmp_path / "a.avi"), 0.95)
    with VideoFile(short) as video:
        seen = len(list(video))
        assert seen < 40
        assert video.ended_early is None


def test_seconds_before_the_first_frame_are_not_missing(tmp_path: Path) -> None:
    """As in the pieces of a recording: Matroska counts from the recording's beginning."""
    whole, piece = write_video(tmp_path / "a.mkv"), tmp_path / "piece.mkv"
    late = ("-c", "copy", "-output_ts_offset", "100")
    quiet = (FFMPEG, "-loglevel", "error")
    subprocess.run([*quiet, "-i", str(whole), *late, str(piece)], check=True)
    with VideoFile(piece) as video:
        assert [frame.time_s for frame in video] == pytest.approx([n / 10 for n in range(40)])
        assert video.ended_early is None
    short = cut_short(piece, 0.5)
    with VideoFile(short) as video:
        frames = len(list(video))
        assert video.ended_early == f"{short} broke off after {frames / 10:.1f} of 4.0 s"


def test_a_cut_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    short = cut_short(write_video(tmp_path / "a.mp4"), 0.6)
    with pytest.raises(SourceError) as refused:
        VideoFile(short)
    assert str(refused.value) == (
        f"{short} cannot be read as a video. Check that the file is complete and plays elsewhere."
    )


def test_files_that_are_no_video(tmp_path: Path) -> None:
    text, empty, frameless = (tmp_path / name for name in ("text.mp4", "empty.mp4", "none.avi"))
    pipe, endless, loop = (tmp_path / name for name in ("pipe.mp4", "zero.mp4", "loop.mp4"))
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    endless.symlink_to("/dev/zero")
    text.write_text("not a video " * 100)
    empty.touch()
    write_video(frameless, frames=0)
    check = "Check that the file is complete and plays elsewhere."
    for path, message in (
        (text, f"{text} cannot be read as a video. {check}"),
        (empty, f"{empty} is empty: found 0 bytes. {check}"),
        (frameless, f"{frameless} holds no frame. {check}"),
        (pipe, f"cannot read {pipe}: found no regular file there"),
        (endless, f"cannot read {endless}: found no regular file there"),
        (loop, f"cannot read {loop}: found Too many levels of symbolic links"),
        (tmp_path / "missing.mp4", f"{tmp_path / 'missing.mp4'} does not exist"),
    ):
        with pytest.raises(SourceError) as refused:
            open_source(path)
        assert str(refused.value) == message


def test_a_name_with_a_zero_byte_is_none() -> None:
    with pytest.raises(SettingsError) as refused:
        open_source("a\0b.mp4")
    assert str(refused.value) == ("path holds a zero byte: required a path, found 'a\\x00b.mp4'")


def test_a_video_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.avi"))
    video.rename(odd)
    with pytest.raises(SourceError) as refused:
        open_source(odd)
    assert str(refused.value) == f"cannot open {tmp_path}/\ufffd.avi: required a name in UTF-8"


@pytest.mark.parametrize("fps", [0, -1.0, 1e-9, 1000.0, 1e308, float("nan"), float("inf")])
def test_fps_out_of_range(tmp_path: Path, fps: float) -> None:
    video = write_video(tmp_path / "a.avi", frames=1)
    for path in (video, tmp_path):
        with pytest.raises(SourceError) as refused:
            open_source(path, fps)
        text = f"fps is out of range: required from 1e-06, below 1000, found {fps}"
        assert str(refused.value) == text


def test_nothing_is_written_to_stderr(tmp_path: Path) -> None:
    short = cut_short(write_video(tmp_path / "a.mkv"), 0.5)
    text = tmp_path / "text.mp4"
    text.write_text("not a video " * 100)
    code = (
        "import os, sys\n"
        "from hermes_edge.errors import SourceError\n"
        "from hermes_edge.sources import open_source\n"
        "before = dict(os.environ)\n"
        "print(len(list(open_source(sys.argv[1]))))\n"
        "try: open_source(sys.argv[2])\n"
        "except SourceError: print('refused')\n"
        "assert dict(os.environ) == before\n"
    )
    command = [sys.executable, "-c", code, str(short), str(text)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["refused"]
    assert done.stderr == ""
