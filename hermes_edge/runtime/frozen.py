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


class FrozenRows:
    """Keys and values of every layer at one moment; each layer is handed out once."""

    def __init__(self, device: Device, slabs: Sequence[tuple[View, View]]) -> None:
        """``slabs``: keys and values of every layer's committed rows."""
        self._device = device
        self._lock = threading.Lock()
        self._unread = dict(enumerate(slabs))
        self._rescued: dict[int, tuple[Array, Array]] = {}

    def take(self, layer: int) -> tuple[Array, Array]:
        """Copies of a layer's keys and values [S, Hkv, D]."""
        with self._lock:
            if layer in self._rescued:
                return self._rescued.pop(layer)
            return self._copy(layer)

    def rescue(self, layer: int) -> None:
        """Copy a layer whose slab is about to be written over, unless it has been read."""
        with self._lock:
            if layer in self._unread:
                self._rescued[layer] = self._copy(layer)

    def _copy(self, layer: int) -> tuple[Array, Array]:
        keys, values = self._unread.pop(layer)
        return self._device.download(keys).copy(), self._device.download(values).copy()
