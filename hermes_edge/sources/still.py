"""Frames that show nothing new.

A frame is still if no cell of its 32 x 32 thumbnail differs from the last kept one by more than 10
levels in any channel. Measured (benchmarks/sources.py): noise of sigma 10 under JPEG at quality 50
moves a cell by 8 at most at 640 x 480 and by 3 at 1920 x 1080; a square of 2 % of the height that
brightens by 60 moves one by 14 at least. Such a square hardly moves the mean over all cells, which
is the more common measure.

The last kept frame is what counts, so a slow change is seen once it has added up. If it was lost
before anybody took it, nothing counts: the next frame is kept.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hermes_edge.sources.base import Frame, Image

THRESHOLD_LEVELS = 10
LONGEST_SKIP_S = 10.0
_SIDE = 32


class StillFilter:
    """Skips near-duplicates, but never longer than ``longest_s``, so that time leaves a trace."""

    def __init__(self, longest_s: float = LONGEST_SKIP_S) -> None:
        self._longest_s = longest_s
        self._kept: npt.NDArray[np.int16] | None = None
        self._kept_s = 0.0

    def skips(self, frame: Frame) -> bool:
        """Whether it may be left out; if not, it is the last kept frame from now on."""
        cells = _thumbnail(frame.image)
        recent = frame.time_s - self._kept_s < self._longest_s
        if self._kept is not None and recent and _most(cells - self._kept) <= THRESHOLD_LEVELS:
            return True
        self._kept, self._kept_s = cells, frame.time_s
        return False

    def forget(self) -> None:
        """The last kept frame was lost: the next one is kept whatever it shows."""
        self._kept = None


def _thumbnail(image: Image) -> npt.NDArray[np.int16]:
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.int16)


def _most(difference: npt.NDArray[np.int16]) -> int:
    return int(np.abs(difference).max())
