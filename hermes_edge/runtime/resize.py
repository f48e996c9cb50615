"""Frames of any size to the vision engine's square, as the checkpoint's processor makes it.

    frame     uint8 [height, width, 3], RGB
    resized   uint8 [side, side, 3], RGB; the aspect ratio is not kept

The filter is antialiased bicubic (a = -0.5, its support stretched when shrinking): Pillow's BICUBIC
and torchvision's ``antialias=True``. OpenCV's INTER_CUBIC does not antialias and gives the model
pictures that it was not trained on. As in both, rows come first and are rounded to whole grey
levels before the columns.

Each pass is a banded matrix. Its outputs are cut into blocks, and a block's inputs are one
contiguous range, so that a pass is a few dense products over short ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_edge.errors import SourceError

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

_SUPPORT = 2.0  # of the cubic filter, in samples
_BLOCK_OUTPUTS = 32
_STRIP_ROWS = 64  # rows in work at a time: a strip of a 1080p frame stays in the cache


@dataclass(frozen=True, slots=True)
class _Block:
    """Outputs ``first`` onwards from inputs [start, stop); weights [stop-start, outputs]."""

    first: int
    start: int
    stop: int
    weights: Float32Array

    @property
    def outputs(self) -> slice:
        return slice(self.first, self.first + self.weights.shape[1])


class FrameResizer:
    """Resizes to ``side`` squared. It holds no state of a stream and may be shared by threads."""

    def __init__(self, side: int) -> None:
        self.side = side

    def resize(self, frame: UInt8Array) -> UInt8Array:
        """A new uint8 [side, side, 3] array.

        Raises:
            SourceError: the frame is not a uint8 array [height, width, 3] with at least one pixel.
        """
        check_frame(frame)
        height, width = frame.shape[:2]
        if height == width == self.side:
            return frame.copy()
        rows = self._resize_rows(frame, _blocks(width, self.side))
        result = np.empty((self.side, self.side, 3), np.uint8)
        for block in _blocks(height, self.side):
            # [3, side, inputs] @ [inputs, outputs]: BLAS reads the transposed operand in place.
            product = rows[:, block.start : block.stop].transpose(0, 2, 1) @ block.weights
            result[block.outputs] = _to_levels(product).transpose(2, 1, 0)
        return result

    def _resize_rows(self, frame: UInt8Array, blocks: tuple[_Block, ...]) -> Float32Array:
        """Every row to ``side`` pixels: float32 [3, height, side] of whole grey levels."""
        height, width = frame.shape[:2]
        rows = np.empty((3, height, self.side), np.float32)
        strip = np.empty((3, _STRIP_ROWS, width), np.float32)
        for top in range(0, height, _STRIP_ROWS):
            bottom = min(top + _STRIP_ROWS, height)
            planes = strip[:, : bottom - top]
            planes[...] = frame[top:bottom].transpose(2, 0, 1)
            for block in blocks:
                rows[:, top:bottom, block.outputs] = (
                    planes[:, :, block.start : block.stop] @ block.weights
                )
            _to_levels(rows[:, top:bottom])
        return rows


def check_frame(frame: Any) -> None:
    """Refuse what is not an RGB picture, before it is resized or queued.

    Raises:
        SourceError: not a uint8 array [height, width, 3] with at least one pixel.
    """
    if not isinstance(frame, np.ndarray):
        found, fix = type(frame).__name__, "Convert it with numpy.asarray."
    else:
        found = f"{frame.dtype} {list(frame.shape)}"
        if frame.ndim == 3 and frame.shape[2] == 3 and frame.size and frame.dtype == np.uint8:
            return
        if frame.size == 0:
            fix = "Skip frames that the camera or the decoder could not deliver."
        elif frame.ndim == 2 or frame.shape[2:] == (1,):
            fix = "Repeat the grey channel: numpy.dstack([frame] * 3)."
        elif frame.shape[2:] == (4,):
            fix = "Drop the alpha channel: frame[..., :3]."
        elif frame.dtype != np.uint8:
            fix = "Scale it to 0..255 and convert it: frame.astype(numpy.uint8)."
        else:
            fix = "Feed one picture at a time, channels last."
    raise SourceError(
        "a frame is not an RGB picture",
        required="uint8 [height, width, 3]",
        found=found,
        fix=fix,
    )


def _to_levels(values: Float32Array) -> Float32Array:
    """Round and clip to 0..255, in place; halves go to the even level."""
    np.rint(values, out=values)
    np.clip(values, 0, 255, out=values)
    return values


@lru_cache(maxsize=16)
def _blocks(inputs: int, outputs: int) -> tuple[_Block, ...]:
    """The banded matrix from ``inputs`` to ``outputs`` samples, cut into blocks of outputs."""
    scale = inputs / outputs
    stretch = max(scale, 1.0)
    blocks = []
    for first in range(0, outputs, _BLOCK_OUTPUTS):
        centres = (np.arange(first, min(first + _BLOCK_OUTPUTS, outputs)) + 0.5) * scale
        starts = np.maximum(np.floor(centres - _SUPPORT * stretch + 0.5), 0)
        stops = np.minimum(np.floor(centres + _SUPPORT * stretch + 0.5), inputs)
        start, stop = int(starts[0]), int(stops[-1])
        samples = np.arange(start, stop)[:, None]
        weights = _cubic((samples + 0.5 - centres) / stretch)
        weights /= weights.sum(axis=0)
        blocks.append(_Block(first, start, stop, np.ascontiguousarray(weights, np.float32)))
    return tuple(blocks)


def _cubic(x: Float64Array) -> Float64Array:
    """Keys' cubic convolution kernel with a = -0.5, as Pillow and torchvision have it."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < _SUPPORT, far, 0.0))
