"""Typed regions of device memory, and the devices that own them.

A :class:`View` is an address with a shape: what an engine binds. On the CPU it is a numpy array and
its address; elsewhere only the address is real. Rows (axis 0) are contiguous, so that the first S
rows and the next T rows of a slab are two views of one allocation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

# Not used by name: numpy knows the dtype "bfloat16" once it is imported.
import ml_dtypes  # noqa: F401
import numpy as np
import numpy.typing as npt

from hermes_edge.contract import DType
from hermes_edge.process import available_bytes
from hermes_edge.spec import ADDRESS_ALIGNMENT_BYTES

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class View:
    """A contiguous tensor at an address; ``owner`` keeps the allocation alive."""

    address: int
    shape: tuple[int, ...]
    dtype: DType
    device: str
    owner: object

    def __len__(self) -> int:
        """Rows, as of an array."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that the view covers."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (axis 0)."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    def rows(self, start: int, stop: int) -> View:
        """Rows ``start`` to ``stop`` of the same memory."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"rows {start}:{stop} of a view with {self.shape[0]} rows")
        address = self.address + start * self.row_bytes
        return View(address, (stop - start, *self.shape[1:]), self.dtype, self.device, self.owner)

    def reshape(self, *shape: int) -> View:
        """The same elements under another shape."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"cannot reshape {self.shape} to {shape}")
        return View(self.address, shape, self.dtype, self.device, self.owner)


Rows = Array | View
"""Rows on the host, or rows that are on the device already."""


def row_slice(rows: Rows, start: int, stop: int) -> Rows:
    """Rows ``start`` to ``stop``, not copied."""
    return rows.rows(start, stop) if isinstance(rows, View) else rows[start:stop]


class Device(Protocol):
    """The one owner of a device's memory: everyone else gets views."""

    @property
    def name(self) -> str:
        """``cpu`` or ``cuda:0``."""

    def allocate(self, shape: tuple[int, ...], dtype: DType) -> View:
        """Zeroed, aligned memory; the caller keeps the view for as long as it is used."""

    def upload(self, source: Array, target: View) -> None:
        """Copy a host array into a view of the same shape and dtype."""

    def copy(self, source: View, target: View) -> None:
        """Copy between two views of one shape and dtype, which do not overlap."""

    def download(self, source: View) -> Array:
        """A host copy of a view, or the memory itself where host and device are one."""

    def synchronize(self) -> None:
        """Wait for everything that was asked of the device."""

    def free_bytes(self) -> int | None:
        """Memory that can be had now; None where nobody knows."""


class CpuDevice:
    """Host memory, aligned as TensorRT asks so that layouts are the same everywhere."""

    name = "cpu"

    def allocate(self, shape: tuple[int, ...], dtype: DType) -> View:
        """Zeroed memory, every page of it resident: a device too small fails now, not hours on."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        raw = np.empty(nbytes + ADDRESS_ALIGNMENT_BYTES, dtype=np.uint8)
        raw.fill(0)
        address = -(-raw.ctypes.data // ADDRESS_ALIGNMENT_BYTES) * ADDRESS_ALIGNMENT_BYTES
        return View(address, shape, dtype, self.name, raw)

    def upload(self, source: Array, target: View) -> None:
        """Copy with the shape and dtype checked: a silent broadcast would hide a wrong caller."""
        check_alike("upload", source, target)
        host_array(target)[...] = source

    def copy(self, source: View, target: View) -> None:
        """Copy with the shape and dtype checked."""
        check_alike("copy", source, target)
        host_array(target)[...] = host_array(source)

    def download(self, source: View) -> Array:
        """The memory itself, not a copy."""
        return host_array(source)

    def synchronize(self) -> None:
        """Nothing: a call returns when it is done."""

    def free_bytes(self) -> int | None:
        """Memory that can be had without swapping, within a container's limit."""
        return available_bytes()


def check_alike(what: str, source: Array | View, target: View) -> None:
    """Raise where two ends of a copy differ in shape or dtype."""
    if source.shape != target.shape or np.dtype(source.dtype) != np.dtype(target.dtype):
        raise ValueError(
            f"{what} of {source.dtype} {source.shape} to {target.dtype} {target.shape}"
        )


def host_array(view: View) -> Array:
    """The numpy array over a CPU view's memory."""
    raw = view.owner
    if not isinstance(raw, np.ndarray):
        raise TypeError(f"a view on {view.device} has no host memory")
    start = view.address - raw.ctypes.data
    array: Array = raw.reshape(-1).view(np.uint8)[start : start + view.nbytes].view(view.dtype)
    return array.reshape(view.shape)


def host_view(array: Array) -> View:
    """A view over a C-contiguous numpy array, which it keeps alive."""
    if not array.flags.c_contiguous:
        raise ValueError("a view needs a C-contiguous array")
    dtype: Any = array.dtype.name
    return View(array.ctypes.data, array.shape, dtype, "cpu", array)
