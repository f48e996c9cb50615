"""Image folders, with real files written by OpenCV."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hermes_edge.errors import SourceError
from hermes_edge.sources import ImageFolder, open_source


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".PNG", ".bmp", ".webp"])
def test_images_of_any_kind_in_rgb(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"a{suffix.lower()}"), np.full((9, 7, 3), (200, 60, 20), np.uint8))
    (tmp_path / f"a{suffix.lower()}").rename(tmp_path / f"b{suffix}")
    (frame,) = ImageFolder(tmp_path)
    assert frame.image.shape == (9, 7, 3)
    assert frame.image.dtype == np.uint8
    np.testing.assert_allclose(frame.image[4, 3], [20, 60, 200], atol=5)


def test_images_come_in_natural_order_with_any_sizes(tmp_path: Path) -> None:
    names = ["img1.png", "img2.png", "IMG3.png", "img10.png", "img10a.png", "z.png"]
    for index, name in reversed(list(enumerate(names))):
        cv2.imwrite(str(tmp_path / name), np.full((5 + index, 4, 3), index, np.uint8))
    for other in (".hidden.png", "notes.txt"):
        (tmp_path / other).write_text("no image")
    with open_source(tmp_path, 2) as source:
        frames = list(source)
        assert source.ended_early is None
    assert [int(frame.image[0, 0, 0]) for frame in frames] == list(range(6))
    assert [frame.image.shape[0] for frame in frames] == [5, 6, 7, 8, 9, 10]
    assert [frame.time_s for frame in frames] == [0, 0.5, 1, 1.5, 2, 2.5]


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.full((4, 4), 77, np.uint8))
    cv2.imwrite(str(tmp_path / "2.png"), np.full((4, 4, 4), (10, 20, 30, 0), np.uint8))
    cv2.imwrite(str(tmp_path / "3.png"), np.full((4, 4, 3), 256 * 99, np.uint16))
    colours = [frame.image[0, 0].tolist() for frame in ImageFolder(tmp_path)]
    assert colours == [[77, 77, 77], [30, 20, 10], [99, 99, 99]]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_image_is_named(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for name in ("1.jpg", "2.jpg"):
        cv2.imwrite(str(tmp_path / name), noise)
    bad = tmp_path / "2.jpg"
    bad.write_bytes(bad.read_bytes()[: int(bad.stat().st_size * share)])
    frames = iter(ImageFolder(tmp_path))
    next(frames)
    with pytest.raises(SourceError) as refused:
        next(frames)
    assert str(refused.value) == (
        f"cannot read the image {bad}: found damaged, or not an image. Remove or replace the file."
    )


def test_an_image_that_vanished_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4, 3), np.uint8))
    folder = ImageFolder(tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(SourceError, match=r"1\.png: found No such file or directory"):
        list(folder)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    """Reading a pipe would wait for ever, and a device may never end."""
    kinds: dict[str, Callable[[Path], object]] = {
        "no regular file there": os.mkfifo,
        "Is a directory": Path.mkdir,
        "Too many levels of symbolic links": lambda path: path.symlink_to(path),
    }
    for name, (found, make) in enumerate([*kinds.items(), ("no regular file there", endless)]):
        folder = tmp_path / str(name)
        folder.mkdir()
        make(folder / "1.png")
        with pytest.raises(SourceError, match=rf"1\.png: found {found}\. Remove or replace"):
            list(ImageFolder(folder))


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def test_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError) as refused:
        open_source(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} holds no image: required files ending in .jpg, .jpeg, .png, .bmp, .webp"
    )
    missing = tmp_path / "missing"
    with pytest.raises(SourceError) as refused:
        ImageFolder(missing)
    assert str(refused.value) == f"{missing} does not exist"
    with pytest.raises(SourceError) as refused:
        ImageFolder(tmp_path / "notes.txt")
    assert str(refused.value) == f"cannot read {tmp_path / 'notes.txt'}: found Not a directory"
