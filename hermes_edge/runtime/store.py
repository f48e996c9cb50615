"""The KV memory of one stream: preallocated slabs on the device, their row metadata on the host.

Slab of a layer: keys and values [capacity, Hkv, D], row = token. The first S rows are committed and
described by a :class:`LayerRows`; rows behind them are scratch: a probe, a question and its answer
live there and are forgotten by not being committed. So a rollback costs nothing and cannot leave
a trace: committed rows are only ever written by :meth:`KVStore.adopt_spare`. Whoever reads a
moment's rows while the stream goes on is told before that, see :class:`FrozenRows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from hermes_edge.contract import past_key, past_value, present_key, present_value
from hermes_edge.engines import Device, View
from hermes_edge.engines.views import Array
from hermes_edge.memory.base import PREFIX_FRAME, Float64Array, Int64Array, LayerRows
from hermes_edge.runtime.frozen import FrozenRows
from hermes_edge.spec import PRECISION_DTYPE, DecoderSpec, MemorySpec, Precision


class KVStore:
    """L pairs of slabs and one spare pair; nothing is allocated after construction."""

    def __init__(
        self, device: Device, decoder: DecoderSpec, precision: Precision, spec: MemorySpec
    ) -> None:
        shape = (spec.capacity_rows, decoder.kv_heads, decoder.head_size)
        dtype = PRECISION_DTYPE[precision]
        self.spec = spec
        self._keys = [device.allocate(shape, dtype) for _ in range(decoder.layers)]
        self._values = [device.allocate(shape, dtype) for _ in range(decoder.layers)]
        self.spare_keys = device.allocate(shape, dtype)
        self.spare_values = device.allocate(shape, dtype)
        self.rows: list[LayerRows] = [_no_rows() for _ in range(decoder.layers)]
        self.scratch_rows = 0
        self.device = device
        self._frozen: list[FrozenRows] = []

    @property
    def slab_bytes(self) -> int:
        """Bytes of the L layers' slabs."""
        return sum(view.nbytes for view in (*self._keys, *self._values))

    @property
    def spare_bytes(self) -> int:
        """Bytes of the spare pair."""
        return self.spare_keys.nbytes + self.spare_values.nbytes

    @property
    def empty(self) -> bool:
        """Whether there is no row to see, neither committed nor scratch."""
        return not self.scratch_rows and not any(map(len, self.rows))

    @property
    def has_frames(self) -> bool:
        """Whether a frame's rows are committed: they stand behind the prefix, in every layer."""
        return bool((self.rows[-1].frame[-1:] != PREFIX_FRAME).any())

    def slab(self, layer: int) -> tuple[View, View]:
        """Keys and values of all rows that a layer can ever have, whatever is in them."""
        return self._keys[layer], self._values[layer]

    def committed(self, layer: int) -> tuple[View, View]:
        """Keys and values of a layer's committed rows."""
        rows = len(self.rows[layer])
        return self._keys[layer].rows(0, rows), self._values[layer].rows(0, rows)

    def scratch_keys(self, layer: int, start: int, stop: int) -> View:
        """Keys of scratch rows, counted from the first row behind the committed ones."""
        rows = len(self.rows[layer])
        return self._keys[layer].rows(rows + start, rows + stop)

    def bindings(self, new_rows: int) -> tuple[dict[str, View], dict[str, View]]:
        """Cache inputs and outputs of a decoder call: read all rows, append ``new_rows`` in place.

        The new rows land behind committed and scratch rows. Which they become is decided by
        :meth:`commit` or by raising ``scratch_rows``.
        """
        past: dict[str, View] = {}
        present: dict[str, View] = {}
        for layer, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            start = len(self.rows[layer]) + self.scratch_rows
            # An empty memory binds a row that nobody sees, and that this call does not write.
            first, stop = (0, start) if start else (keys.shape[0] - 1, keys.shape[0])
            past[past_key(layer)] = keys.rows(first, stop)
            past[past_value(layer)] = values.rows(first, stop)
            present[present_key(layer)] = keys.rows(start, start + new_rows)
            present[present_value(layer)] = values.rows(start, start + new_rows)
        return past, present

    def whole(self) -> dict[str, View]:
        """Cache inputs of a static decoder: all rows that a layer can have, at fixed addresses."""
        past: dict[str, View] = {}
        for layer, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            past |= {past_key(layer): keys, past_value(layer): values}
        return past

    def seen_rows(self) -> Int64Array:
        """Rows of each layer, committed and scratch, int64 [L]."""
        return np.array([len(rows) + self.scratch_rows for rows in self.rows], dtype=np.int64)

    def positions(self, new_rows: int) -> Int64Array:
        """Positions int64 [L, T] of the next T rows; layers drift apart through summaries."""
        first = [rows.next_position + self.scratch_rows for rows in self.rows]
        return np.asarray(first, dtype=np.int64)[:, None] + np.arange(new_rows, dtype=np.int64)

    def commit(self, frames: Int64Array, times: Float64Array) -> None:
        """Make the next rows part of the memory.

        Args:
            frames: int64 [T], frame index of each row, or ``PREFIX_FRAME``.
            times: float64 [T], seconds.
        """
        if self.scratch_rows:
            raise RuntimeError(f"commit behind {self.scratch_rows} scratch rows")
        positions = self.positions(len(frames))
        ones = np.ones(len(frames), dtype=np.int64)
        self.rows = [
            LayerRows(
                np.concatenate([rows.position, position]),
                np.concatenate([rows.frame, frames]),
                np.concatenate([rows.time, times]),
                np.concatenate([rows.weight, ones]),
            )
            for rows, position in zip(self.rows, positions, strict=True)
        ]

    def adopt_spare(self, layer: int, rows: LayerRows) -> None:
        """Swap a layer's slabs with the spare pair, which now holds ``rows``."""
        # A copy: a save may end in another thread at any time.
        for frozen in tuple(self._frozen):
            frozen.rescue(layer)
        self._keys[layer], self.spare_keys = self.spare_keys, self._keys[layer]
        self._values[layer], self.spare_values = self.spare_values, self._values[layer]
        self.rows[layer] = rows

    @contextmanager
    def freeze(self) -> Iterator[FrozenRows]:
        """The committed rows as they are now, to be copied while the stream goes on."""
        frozen = FrozenRows(self.device, [self.committed(n) for n in range(len(self.rows))])
        self._frozen.append(frozen)
        try:
            yield frozen
        finally:
            self._frozen.remove(frozen)

    def load(self, layer: int, rows: LayerRows, keys: Array, values: Array) -> None:
        """Fill an empty layer with rows that were saved.

        Args:
            layer: its index.
            rows: one record per row.
            keys, values: [S, Hkv, D] in the slab's dtype.
        """
        self.rows[layer] = rows
        for saved, view in zip((keys, values), self.committed(layer), strict=True):
            self.device.upload(saved, view)


def visual_rows(rows: Sequence[LayerRows]) -> list[int]:
    """Rows of each layer that are not prefix."""
    return [int(np.count_nonzero(layer.frame != PREFIX_FRAME)) for layer in rows]


def _no_rows() -> LayerRows:
    empty = np.empty(0, dtype=np.int64)
    return LayerRows(empty, empty, np.empty(0, dtype=np.float64), empty)
