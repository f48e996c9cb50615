"""Calls of the decoder engine on one stream's memory.

Staging buffers are made once for the longest call. A call takes T embeddings and leaves T new
rows in the slabs, behind everything that is there.

*A step* is a call of one row on a static decoder: whole slabs are bound, and the new row goes to
staging and is copied behind the memory afterwards. So between two compactions every step has the
same shapes and addresses, and an engine may replay it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_edge.contract import DType, is_static, present_key, present_value
from hermes_edge.engines import Device, Engine, View
from hermes_edge.engines.views import Array, Rows
from hermes_edge.runtime.store import KVStore
from hermes_edge.spec import ADDRESS_ALIGNMENT_BYTES, PRECISION_DTYPE, DecoderSpec, Precision

EngineCall = Callable[[Engine, Mapping[str, View], Mapping[str, View]], None]
"""Runs an engine; the runtime serialises the calls of all its sessions."""

OwnTurn = Callable[[], AbstractContextManager[None]]
"""Holds the engines for what a stream does by itself; a question to it gets in before that."""


class Staging:
    """A flat device buffer that serves tensors of any shape up to its size."""

    def __init__(self, device: Device, elements: int, dtype: DType) -> None:
        self._device = device
        self._dtype = np.dtype(dtype)
        self._flat = device.allocate((elements,), dtype)

    def view(self, *shape: int) -> View:
        """The first elements, shaped; the content is whatever was there."""
        return self._flat.rows(0, int(np.prod(shape, dtype=np.int64))).reshape(*shape)

    def put(self, array: Array) -> View:
        """The array, uploaded."""
        view = self.view(*array.shape)
        self._device.upload(np.ascontiguousarray(array, dtype=self._dtype), view)
        return view


@dataclass(frozen=True, slots=True)
class DecoderLimits:
    """The longest call: T new rows, and P probe rows that hand out their queries."""

    new_rows: int
    probe_rows: int


class DecoderRunner:
    """Binds embeddings, positions and slabs to the decoder engine and runs it."""

    def __init__(
        self,
        engine: Engine,
        call: EngineCall,
        device: Device,
        decoder: DecoderSpec,
        precision: Precision,
        limits: DecoderLimits,
    ) -> None:
        dtype = PRECISION_DTYPE[precision]
        self._engine, self._call, self._device = engine, call, device
        self._decoder = decoder
        rows, probes = limits.new_rows, limits.probe_rows
        query_elements = decoder.layers * decoder.query_heads * decoder.head_size
        self._embeds = Staging(device, rows * decoder.embedding_width, dtype)
        self._positions = Staging(device, rows * decoder.layers, "int64")
        self._segments = Staging(device, rows, "int64")
        self._logit_rows = Staging(device, 1, "int64")
        self._probe_rows = Staging(device, probes, "int64")
        self._static = is_static(engine.graph.inputs)
        if self._static:
            self._past_seen = Staging(device, decoder.layers, "int64")
            self._step_rows = self._make_step_rows(dtype)
        else:
            self._past_seen = Staging(device, 1, "bool")
        self._logits = Staging(device, decoder.vocabulary, "float32")
        self._queries = Staging(device, probes * query_elements, dtype)

    def run(
        self,
        store: KVStore,
        embeds: Sequence[Rows],
        *,
        segments: npt.NDArray[np.int64] | None = None,
        positions: npt.NDArray[np.int64] | None = None,
        probe_rows: int = 0,
        want_logits: bool = False,
    ) -> tuple[Array | None, View]:
        """One pass.

        Args:
            store: the memory; T scratch rows must still fit.
            embeds: T rows [, E] in one or more parts, each on host or device.
            segments: int64 [T], or all rows of the stream.
            positions: int64 [L, T], or those that follow the memory.
            probe_rows: the last P rows hand out their queries.
            want_logits: whether the last row's logits are computed.

        Returns:
            Logits float32 [V] or None, and a view of queries [L, P, Hq, D] that is valid until
            the next call with probes.
        """
        count = sum(map(len, embeds))
        if positions is None:
            positions = store.positions(count)
        if segments is None:
            segments = np.zeros(count, dtype=np.int64)
        wanted = np.arange(count - want_logits, count, dtype=np.int64)
        probes = np.arange(count - probe_rows, count, dtype=np.int64)
        decoder = self._decoder
        logits = self._logits.view(len(wanted), decoder.vocabulary)
        queries = self._queries.view(
            decoder.layers, probe_rows, decoder.query_heads, decoder.head_size
        )
        past, present = store.bindings(count)
        is_step = self._static and count == 1
        inputs = {
            "inputs_embeds": self._gather(embeds, count),
            "position_ids": self._positions.put(positions),
            "segment_ids": self._segments.put(segments),
            "logit_rows": self._logit_rows.put(wanted),
            "probe_rows": self._probe_rows.put(probes),
            **self._see_past(store),
            **(store.whole() if is_step else past),
        }
        written = self._step_rows if is_step else present
        self._call(self._engine, inputs, {"logits": logits, "probe_queries": queries, **written})
        if is_step:
            for name, row in present.items():
                self._device.copy(written[name], row)
        last: Any = self._device.download(logits)[0].copy() if want_logits else None
        return last, queries

    def _make_step_rows(self, dtype: DType) -> dict[str, View]:
        """Where a step's new keys and values go, [1, Hkv, D] by name."""
        layers, head = self._decoder.layers, (self._decoder.kv_heads, self._decoder.head_size)
        rows = self._device.allocate((2 * layers, *head), dtype)
        names = [name(layer) for layer in range(layers) for name in (present_key, present_value)]
        return {name: rows.rows(index, index + 1) for index, name in enumerate(names)}

    def _see_past(self, store: KVStore) -> dict[str, View]:
        if self._static:
            return {"past_rows": self._past_seen.put(store.seen_rows())}
        return {"past_visible": self._past_seen.put(np.array([not store.empty]))}

    def download(self, view: View) -> Array:
        """A view's content on the host; not copied where host and device are one."""
        return self._device.download(view)

    def _gather(self, parts: Sequence[Rows], count: int) -> View:
        """The parts as one tensor; rows of the device stay where they are if they stand alone."""
        first = parts[0]
        if len(parts) == 1 and isinstance(first, View):
            # A row may begin anywhere, and TensorRT binds aligned addresses alone.
            if first.address % ADDRESS_ALIGNMENT_BYTES == 0:
                return first
        whole = self._embeds.view(count, self._decoder.embedding_width)
        done = 0
        for part in parts:
            target = whole.rows(done, done + len(part))
            if isinstance(part, View):
                self._device.copy(part, target)
            elif len(part):
                array = np.ascontiguousarray(part, dtype=target.dtype)
                self._device.upload(array, target)
            done += len(part)
        return whole

    def warm_up(self, store: KVStore, new_rows: int, probe_rows: int) -> None:
        """The largest call once, behind a full memory, so that all workspace is claimed now."""
        store.scratch_rows = store.spec.capacity_rows - new_rows
        embeds = np.zeros((new_rows, self._decoder.embedding_width))
        self.run(store, (embeds,), probe_rows=probe_rows, want_logits=True)
        if self._static:
            # What replays calls takes its record of the second one: it fails here too.
            store.scratch_rows = store.spec.capacity_rows - 1
            self.run(store, (embeds[:1],), want_logits=True)
        store.scratch_rows = 0
