"""A folder of images, read one by one.

An image that cannot be read is skipped, and leaves a gap: the next one keeps its time.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from hermes_edge.arguments import path_of
from hermes_edge.errors import SourceError
from hermes_edge.sources.base import GrabbedFrame, Image, Source, SourceCounts, check_fps
from hermes_edge.sources.pictures import MOST_BAD_FRAMES, printable, quiet_opencv, rgb
from hermes_edge.storage import open_regular

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# So many bad images are told of by name, the others by their number.
_MOST_NAMED = 3


class ImageFolder(Source):
    """The images of a folder in natural order (img2 before img10), of any sizes.

    Args:
        path: of the folder; ``IMAGE_SUFFIXES`` count, hidden files and folders do not.
        fps: image i is at i/fps seconds; None for one image per second.

    Raises:
        SettingsError: an argument of another type.
        SourceError: ``fps`` is not positive and finite, the folder is missing or holds no image.
            While iterating: none of its images can be read.
    """

    fps: float | None = None
    """Every image is given."""

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        check_fps(fps)
        self.path = path_of("path", path)
        self.name = printable(self.path)
        self.counts = SourceCounts()
        self.ended_early: str | None = None
        self.images = _image_paths(self.path)
        self._images_per_s = 1.0 if fps is None else fps
        self._closed = False
        self._told: set[Path] = set()
        self._begin()

    def _begin(self) -> None:
        self._good = self._bad = self._bad_in_a_row = 0
        self._first_fault: SourceError | None = None
        self._untold: dict[Path, SourceError] = {}

    @property
    def live(self) -> bool:
        """A folder waits."""
        return False

    def grabs(self) -> Generator[GrabbedFrame, None, None]:
        """Every image; it is read where it is retrieved."""
        self._closed, self.ended_early = False, None
        self._begin()
        for index, path in enumerate(self.images):
            if self._closed:
                return
            if self._bad_in_a_row == MOST_BAD_FRAMES:
                self.ended_early = (
                    f"{self.name} broke off after {index - MOST_BAD_FRAMES} of {len(self.images)} "
                    f"images: {MOST_BAD_FRAMES} in a row cannot be read"
                )
                break
            self.counts.frames_read += 1
            read = partial(self._retrieve, path)
            yield GrabbedFrame(index / self._images_per_s, time.time(), read)
        if not self._good and self._first_fault is not None:
            raise self._first_fault
        if self._bad > len(self._told):
            self.tell(logging.WARNING, "%d images in all cannot be read", self._bad)

    def close(self) -> None:
        """An iteration that is under way ends; no file is held open between images."""
        self._closed = True

    def _retrieve(self, path: Path) -> Image | None:
        image: Image | None
        try:
            image = _read_image(path)
        except SourceError as fault:
            self._bad, self._bad_in_a_row = self._bad + 1, self._bad_in_a_row + 1
            self.counts.bad_frames += 1
            self._first_fault = self._first_fault or fault
            if len(self._untold) < _MOST_NAMED:
                self._untold[path] = fault
            image = None
        else:
            self._good, self._bad_in_a_row = self._good + 1, 0
        # Where no image can be read, the error alone says so.
        if self._good:
            self._tell_faults()
        return image

    def _tell_faults(self) -> None:
        for path, fault in self._untold.items():
            if path not in self._told and len(self._told) < _MOST_NAMED:
                self._told.add(path)
                self.tell(logging.WARNING, "an image is skipped: %s", fault)
        self._untold.clear()


def _image_paths(folder: Path) -> tuple[Path, ...]:
    try:
        paths = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not path.name.startswith(".")
            and not os.path.isdir(path)
        ]
    except FileNotFoundError:
        raise SourceError(f"{printable(folder)} does not exist") from None
    except OSError as error:
        raise SourceError(f"cannot read {printable(folder)}", found=error.strerror) from None
    if not paths:
        raise SourceError(
            f"{printable(folder)} holds no image",
            required=f"files ending in {', '.join(IMAGE_SUFFIXES)}",
        )
    return tuple(sorted(paths, key=_natural_key))


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    """Digits compare as numbers, letters without case; the name itself breaks ties."""
    parts = re.split("([0-9]+)", path.name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _read_image(path: Path) -> Image:
    picture, found = None, "damaged, or not an image"
    try:
        with open_regular(path) as file:
            data = np.frombuffer(file.read(), np.uint8)
        with quiet_opencv():
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError as error:
        found = str(error.strerror)
    except cv2.error as error:
        found = error.err
    image = rgb(picture)
    if image is None:
        raise SourceError(
            f"cannot read the image {printable(path)}",
            found=found,
            fix="Remove or replace the file.",
        )
    return image
