"""Copy-on-compact: the rows of one moment, read while the stream goes on.

Appends go behind the committed rows, so these stay as they are until a compaction swaps their slab
with the spare one, which the next layer's compaction then writes to. What has not been read by
then is copied first. So at most one copy of the committed rows exists, and mostly one layer's.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hermes_edge.engines import Device, View
from hermes_edge.engines.views import Array
from hermes_edge.errors import StorageError


class FrozenRows:
    """Keys and values of every layer at one moment; each layer is handed out once."""

    def __init__(self, device: Device, slabs: Sequence[tuple[View, View]]) -> None:
        """``slabs``: keys and values of every layer's committed rows."""
        self._device = device
        self._lock = threading.Lock()
        self._unread = dict(enumerate(slabs))
        self._rescued: dict[int, tuple[Array, Array]] = {}

    def take(self, layer: int) -> tuple[Array, Array]:
        """Copies of a layer's keys and values [S, Hkv, D].

        Raises:
            StorageError: there is no memory for them, or was none when the stream went on.
        """
        with self._lock:
            copies = self._rescued.pop(layer, None) or self._copy(layer)
        if copies is None:
            raise StorageError(
                "there is no memory to copy the rows that are saved",
                required="room for them beside the stream",
                fix="Lower the budget, or end other programs",
            )
        return copies

    def rescue(self, layer: int) -> None:
        """Copy a layer whose slab is about to be written over, unless it has been read."""
        with self._lock:
            if layer in self._unread and (copies := self._copy(layer)) is not None:
                self._rescued[layer] = copies

    def _copy(self, layer: int) -> tuple[Array, Array] | None:
        """A layer that has not been read; None where it has been lost, or is now.

        A compaction that stopped half-way would end the stream: the save fails instead.
        """
        slabs = self._unread.pop(layer, None)
        if slabs is None:
            return None
        download = self._device.download
        try:
            return download(slabs[0]).copy(), download(slabs[1]).copy()
        except MemoryError:
            return None
