"""Image folders, with real files written by OpenCV."""

import os
from collections.abc import Callable, Container
from pathlib import Path

import cv2
import numpy as np
import pytest

from hermes_edge.errors import SourceError
from hermes_edge.sources import ImageFolder, open_source, parse_address


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


CHECK = "Remove or replace the file."


def write_images(folder: Path, names: list[str], damaged: Container[str] = ()) -> None:
    """Each as bright as its place in the folder says."""
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((4, 4, 3), index, np.uint8))
        if name in damaged:
            (folder / name).write_bytes((folder / name).read_bytes()[:20])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_image_is_skipped_named_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        cv2.imwrite(str(tmp_path / name), noise)
    bad = tmp_path / "2.jpg"
    bad.write_bytes(bad.read_bytes()[: int(bad.stat().st_size * share)])
    folder = ImageFolder(tmp_path, 2)
    # Its time stays empty.
    assert [frame.time_s for frame in folder] == [0, 1]
    assert (folder.counts.frames_read, folder.counts.bad_frames) == (3, 1)
    assert folder.ended_early is None
    told = (
        f"{tmp_path}: an image is skipped: cannot read the image {bad}: "
        f"found damaged, or not an image. {CHECK}"
    )
    assert caplog.messages == [told]
    assert len(list(folder)) == 2
    assert caplog.messages == [told]


def test_of_many_damaged_images_the_first_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{index}.png" for index in range(60)]
    write_images(tmp_path, names, damaged=names[::2])
    with parse_address(f"clips={tmp_path}").open() as folder:
        assert [frame.time_s for frame in folder] == [*range(1, 60, 2)]
        assert (folder.counts.bad_frames, folder.ended_early) == (30, None)
    assert caplog.messages == [
        *(
            f"clips: an image is skipped: cannot read the image {tmp_path / name}: "
            f"found damaged, or not an image. {CHECK}"
            for name in ("0.png", "2.png", "4.png")
        ),
        "clips: 30 images in all cannot be read",
    ]


def test_thirty_damaged_images_in_a_row_end_a_folder(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(40)]
    write_images(tmp_path, names, damaged=names[4:34])
    folder = ImageFolder(tmp_path)
    assert len(list(folder)) == 4
    assert folder.counts.bad_frames == 30
    assert folder.ended_early == (
        f"{tmp_path} broke off after 4 of 40 images: 30 in a row cannot be read"
    )
    write_images(tmp_path, names, damaged=names[4:33])
    assert len(list(folder)) == 11
    assert folder.ended_early is None


@pytest.mark.parametrize("images", [1, 31])
def test_a_folder_none_of_whose_images_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, images: int
) -> None:
    names = [f"{index}.png" for index in range(images)]
    write_images(tmp_path, names, damaged=names)
    folder = ImageFolder(tmp_path)
    for _ in range(2):
        with pytest.raises(SourceError) as refused:
            list(folder)
        assert str(refused.value) == (
            f"cannot read the image {tmp_path / '0.png'}: found damaged, or not an image. {CHECK}"
        )
    assert caplog.messages == []  # the error says it


def test_an_image_that_vanished_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4, 3), np.uint8))
    folder = ImageFolder(tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(SourceError, match=r"1\.png: found No such file or directory"):
        list(folder)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    """Reading a pipe would wait for ever, and a device may never end."""
    kinds: list[tuple[str, Callable[[Path], object]]] = [
        ("no regular file there", os.mkfifo),
        ("Too many levels of symbolic links", lambda path: path.symlink_to(path)),
        ("no regular file there", endless),
    ]
    for name, (found, make) in enumerate(kinds):
        folder = tmp_path / str(name)
        folder.mkdir()
        make(folder / "1.png")
        with pytest.raises(SourceError, match=rf"1\.png: found {found}\. Remove or replace"):
            list(ImageFolder(folder))


def test_a_folder_is_no_image_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "0.png").mkdir()
    (tmp_path / "2.png").symlink_to(tmp_path / "0.png")
    with pytest.raises(SourceError, match="holds no image: required files ending in"):
        ImageFolder(tmp_path)
    write_images(tmp_path, ["1.png", "3.png"])
    folder = ImageFolder(tmp_path)
    assert [frame.time_s for frame in folder] == [0, 1]
    assert folder.counts.bad_frames == 0


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
