"""Frames to visual tokens: resized on arrival, kept until a slice is full."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_edge.arguments import real
from hermes_edge.contract import DType
from hermes_edge.engines import Device, Engine, View
from hermes_edge.engines.views import Array
from hermes_edge.errors import SourceError
from hermes_edge.runtime.decoding import EngineCall
from hermes_edge.runtime.resize import FrameResizer
from hermes_edge.spec import PRECISION_DTYPE, Precision, VisionSpec


@dataclass(frozen=True, slots=True)
class Waiting:
    """Frames that were fed and not encoded yet, resized: uint8 [F, side, side, 3], seconds [F]."""

    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]


NO_FRAMES = Waiting(np.empty((0, 0, 0, 3), dtype=np.uint8), np.empty(0, dtype=np.float64))


class FrameEncoder:
    """Waiting frames of one stream and the ``vision`` engine."""

    def __init__(
        self,
        engine: Engine,
        call: EngineCall,
        device: Device,
        vision: VisionSpec,
        output: tuple[int, Precision],
        slice_frames: int,
    ) -> None:
        """``output``: embedding width E and precision of the visual tokens."""
        width, precision = output
        side = vision.image_size
        self._engine, self._call, self._device = engine, call, device
        self._tokens_per_frame = vision.tokens_per_frame
        self._resizer = FrameResizer(side)
        self._frames = np.zeros((slice_frames, side, side, 3), dtype=np.uint8)
        self._staged = device.allocate(self._frames.shape, "uint8")
        rows = slice_frames * vision.tokens_per_frame
        self._tokens: View = device.allocate((rows, width), PRECISION_DTYPE[precision])
        self._times: list[float] = []

    @property
    def waiting(self) -> int:
        """Frames added since the last :meth:`encode`."""
        return len(self._times)

    def add(self, frame: npt.NDArray[np.uint8], at: float) -> None:
        """Resize and keep a frame.

        Raises:
            SourceError: it is not uint8 [height, width, 3].
        """
        self._frames[len(self._times)] = self._resizer.resize(frame)
        self._times.append(at)

    def put_back(self, times: Sequence[float]) -> None:
        """The frames that :meth:`encode` has taken last, before any other came, wait again."""
        self._times = [*times, *self._times]

    def waiting_frames(self) -> Waiting:
        """A copy of the frames that wait."""
        times = np.array(self._times, dtype=np.float64)
        return Waiting(self._frames[: self.waiting].copy(), times)

    def load(self, waiting: Waiting) -> None:
        """Take back what :meth:`waiting_frames` gave."""
        self._frames[: len(waiting.frames)] = waiting.frames
        self._times = waiting.times.tolist()

    def warm_up(self) -> None:
        """The largest call once, so that all workspace is claimed now."""
        # numpy's BLAS keeps the buffers that it takes at its first product.
        self._resizer.resize(np.zeros((1080, 1920, 3), dtype=np.uint8))
        self._times = [0.0] * len(self._frames)
        self.encode()

    def encode(self) -> tuple[View, list[float]]:
        """Visual tokens [F*N, E] and times of all waiting frames; none wait afterwards.

        The tokens stay on the device, and are valid until the next call.
        """
        times, self._times = self._times, []
        count = len(times)
        staged = self._staged.rows(0, count)
        self._device.upload(self._frames[:count], staged)
        tokens = self._tokens.rows(0, count * self._tokens_per_frame)
        self._call(self._engine, {"frames": staged}, {"visual_tokens": tokens})
        return tokens, times

    def encode_all(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Array:
        """Visual tokens [F*N, E] of any number of frames, at least one."""
        tokens, most = [], len(self._frames)
        for start in range(0, len(frames), most):
            for frame in frames[start : start + most]:
                self.add(frame, 0.0)
            tokens.append(self._device.download(self.encode()[0]).copy())
        return np.concatenate(tokens)


def checked_tokens(visual_tokens: Array, shape: tuple[int, int], dtype: DType) -> Array:
    """Visual tokens [F*N, E] that a caller has encoded, as ``dtype``; ``shape`` is (N, E).

    Raises:
        SourceError: another shape or dtype, or values that are not finite in ``dtype``.
    """
    count, width = shape
    try:
        tokens = np.asarray(visual_tokens)
    except ValueError as error:
        raise SourceError(
            "visual tokens are no array", required="floating point", found=str(error)
        ) from None
    fits = tokens.ndim == 2 and tokens.shape[1] == width and len(tokens) % count == 0
    # numpy does not count bfloat16 among its own.
    floating = np.issubdtype(tokens.dtype, np.floating) or tokens.dtype == np.dtype("bfloat16")
    if not fits or len(tokens) == 0 or not floating:
        raise SourceError(
            "visual tokens of another shape",
            required=f"floating point [F*{count}, {width}], F at least 1",
            found=f"{tokens.dtype} {list(tokens.shape)}",
        )
    # Checked behind the cast: what is too large for the rows becomes infinite in it.
    with np.errstate(over="ignore", invalid="ignore"):
        rows = tokens.astype(dtype, copy=False)
    finite = np.isfinite(rows)
    if not finite.all():
        raise SourceError(
            "visual tokens that are not finite",
            required=f"finite numbers of {dtype}",
            found=f"{float(tokens[~finite][0]):g}",
            fix="Check the encoder",
        )
    return rows


def capture_time(captured_s: float | None) -> float | None:
    """The same time; None stays None.

    Raises:
        SourceError: it is no finite number.
    """
    if captured_s is None:
        return None
    time = real(captured_s)
    if time is None or not math.isfinite(time):
        raise SourceError(
            "the time of a capture is not a number",
            required="seconds of time.monotonic()",
            found=reprlib.repr(captured_s),
        )
    return time


def frame_times(at: float | Sequence[float], count: int, newest_s: float) -> list[float]:
    """Seconds of ``count`` frames, from one time for all of them or one for each.

    Raises:
        SourceError: another number of times, something else than numbers, or times that do not go
            on from ``newest_s``.
    """
    try:
        given = np.asarray(at, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise SourceError("a time is not a number", required="seconds", found=repr(at)) from None
    times = np.full(count, given) if given.ndim == 0 else given
    if times.shape != (count,):
        raise SourceError("wrong number of times", required=count, found=times.size)
    for time in times:
        if not math.isfinite(time) or time < newest_s:
            raise SourceError(
                "time runs backwards", required=f"at >= {newest_s:g} s", found=f"{time:g} s"
            )
        newest_s = time
    return [float(time) for time in times]
