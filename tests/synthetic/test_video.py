"""Streams as files: readable, in time, and an error where they cannot be written."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.sources import VideoFile
from hermes_edge.synthetic import draw_stream, make_stream, write_video


@pytest.mark.parametrize("fps", [0.5, 1.0, 8.0])
def test_every_frame_is_there_at_its_time(tmp_path: Path, fps: float) -> None:
    stream = make_stream(3, 20)
    write_video(tmp_path / "a.avi", stream, fps)
    with VideoFile(tmp_path / "a.avi") as video:
        frames = list(video)
        assert video.ended_early is None
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(20) / fps)
    for frame, drawn in zip(frames, draw_stream(stream), strict=True):
        assert frame.image.shape == drawn.shape
        # What motion JPEG loses on noise and hard edges.
        assert np.abs(frame.image.astype(int) - drawn).mean() < 6


def test_equal_streams_give_equal_files(tmp_path: Path) -> None:
    for name, seed in (("a.avi", 4), ("b.avi", 4), ("c.avi", 5)):
        write_video(tmp_path / name, make_stream(seed, 6))
    assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()
    assert (tmp_path / "a.avi").read_bytes() != (tmp_path / "c.avi").read_bytes()


@pytest.mark.parametrize(
    ("name", "fps", "text"),
    [
        ("a.mp4", 1.0, "video file is out of range: required a name ending in .avi, found a.mp4"),
        ("a.avi", -1.0, "fps is out of range: required above 0 and finite, found -1.0"),
        ("a.avi", 0.0, "fps is out of range: required above 0 and finite, found 0.0"),
        ("a.avi", math.inf, "fps is out of range: required above 0 and finite, found inf"),
        ("a.avi", math.nan, "fps is out of range: required above 0 and finite, found nan"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, name: str, fps: float, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        write_video(tmp_path / name, make_stream(0, 2), fps)
    assert str(refused.value) == text
    assert not (tmp_path / name).exists()


def test_a_full_disk_and_a_missing_folder_are_storage_errors(tmp_path: Path) -> None:
    full = tmp_path / "full.avi"
    full.symlink_to("/dev/full")
    for path in (full, tmp_path / "missing" / "a.avi"):
        with pytest.raises(StorageError) as failed:
            write_video(path, make_stream(0, 5))
        assert str(failed.value) == (
            f"cannot write {path}: required 5 frames, found 0 frames. Check that the folder "
            "exists and is writable, and that the disk has room."
        )


def test_an_older_file_that_cannot_be_replaced_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.avi"
    write_video(path, make_stream(0, 5))

    class Refused:
        """The writer that a file without write permission gives, also to root."""

        fourcc = staticmethod(cv2.VideoWriter.fourcc)

        def __init__(self, *_: object) -> None: ...

        def isOpened(self) -> bool:
            return False

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoWriter", Refused)
    with pytest.raises(StorageError, match="required 5 frames, found 0 frames"):
        write_video(path, make_stream(1, 5))


def test_streams_need_neither_torch_nor_onnxruntime() -> None:
    code = "import sys, hermes_edge.synthetic; print(' '.join(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "hermes_edge.synthetic.video" in modules
    assert not {"torch", "transformers", "onnx", "onnxscript", "onnxruntime"} & {*modules}
