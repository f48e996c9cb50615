"""The synthetic video: seeded, readable, and an error where it cannot be written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.runtime.sources import VideoFile
from hermes_edge.runtime.synthetic import write_synthetic_video


def pictures(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.stack([frame.image for frame in VideoFile(path)])


def test_length_rate_and_size_are_as_asked(tmp_path: Path) -> None:
    write_synthetic_video(tmp_path / "a.avi", seconds=2.5, fps=8, size=(96, 64))
    with VideoFile(tmp_path / "a.avi") as video:
        frames = list(video)
        assert video.ended_early is None
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(20) / 8)
    assert {frame.image.shape for frame in frames} == {(64, 96, 3)}


def test_equal_seeds_give_equal_frames_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("a.avi", 4), ("b.avi", 4), ("c.avi", 5)):
        write_synthetic_video(tmp_path / name, seconds=1, fps=4, seed=seed, size=(64, 48))
    assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()
    assert not np.array_equal(pictures(tmp_path / "a.avi"), pictures(tmp_path / "c.avi"))


def test_scenes_differ_and_shapes_move(tmp_path: Path) -> None:
    write_synthetic_video(tmp_path / "a.avi", seconds=12, fps=2, size=(96, 64))
    seen = pictures(tmp_path / "a.avi").astype(int)
    changes = np.abs(np.diff(seen, axis=0)).mean(axis=(1, 2, 3))
    cuts = np.arange(7, 23, 8)
    assert changes[cuts].min() > 20, "a new scene has another background"
    within = np.delete(changes, cuts)
    assert 0 < within.min()
    assert within.max() < 20


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("a.mp4", {}, "video file is out of range: required a name ending in .avi, found a.mp4"),
        ("a.avi", {"seconds": 0}, "seconds is out of range: required above 0 and finite, found 0"),
        ("a.avi", {"fps": -1}, "fps is out of range: required above 0 and finite, found -1"),
        ("a.avi", {"seed": -1}, "seed is out of range: required 0 or more, found -1"),
        (
            "a.avi",
            {"size": (64, 16)},
            "size is out of range: required at least 32x32 pixels, found 64x16",
        ),
    ],
)
def test_arguments_out_of_range(
    tmp_path: Path, name: str, values: dict[str, Any], text: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        write_synthetic_video(tmp_path / name, **{"seconds": 1, "fps": 2, **values})
    assert str(refused.value) == text


def test_a_full_disk_and_a_missing_folder_are_storage_errors(tmp_path: Path) -> None:
    full = tmp_path / "full.avi"
    full.symlink_to("/dev/full")
    for path in (full, tmp_path / "missing" / "a.avi"):
        with pytest.raises(StorageError) as failed:
            write_synthetic_video(path, seconds=1, fps=5)
        assert str(failed.value) == (
            f"cannot write {path}: required 5 frames, found 0 frames. Check that the folder "
            "exists and is writable, and that the disk has room."
        )
