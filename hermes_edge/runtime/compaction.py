"""Carries a policy's plan out in the slabs: layer by layer into the spare pair, then a swap."""

from __future__ import annotations

import numpy as np

from hermes_edge.engines import Device, Engine, View
from hermes_edge.engines.views import Array
from hermes_edge.memory import apply_plan
from hermes_edge.memory.base import LayerPlan, LayerRows, Plan
from hermes_edge.runtime.decoding import EngineCall, OwnTurn, Staging
from hermes_edge.runtime.store import KVStore


class Compactor:
    """Index staging and the ``compact`` engine; the only writer of committed rows."""

    def __init__(
        self,
        engine: Engine,
        call: EngineCall,
        device: Device,
        capacity_rows: int,
        turn: OwnTurn,
    ) -> None:
        """``turn`` is taken for every layer: each is whole, before its call and behind it."""
        self._engine, self._call, self._turn = engine, call, turn
        self._keep = Staging(device, capacity_rows, "int64")
        self._keep_delta = Staging(device, capacity_rows, "int64")
        self._fold = Staging(device, capacity_rows, "int64")
        self._fold_delta = Staging(device, capacity_rows, "int64")
        self._fold_weight = Staging(device, capacity_rows, "float32")

    def carry_out(self, store: KVStore, plan: Plan) -> None:
        """Compact every layer that its plan changes."""
        for layer, layer_plan in enumerate(plan):
            rows = store.rows[layer]
            if not _is_identity(layer_plan, rows):
                with self._turn():
                    self._compact_layer(store, layer, layer_plan)
                store.adopt_spare(layer, apply_plan(rows, layer_plan))

    def warm_up(self, store: KVStore) -> None:
        """The largest call once, into the spare pair, so that all workspace is claimed now."""
        keys, values = store.slab(0)
        rows = np.arange(keys.shape[0] - 1, dtype=np.int64)
        weights = np.zeros(len(rows), dtype=np.float32)
        self._run(store, (keys, values), (rows, 0 * rows, rows, 0 * rows, weights))

    def _compact_layer(self, store: KVStore, layer: int, plan: LayerPlan) -> None:
        old = store.rows[layer].position
        summary = 0 if plan.summary_position is None else plan.summary_position
        folds = (plan.fold, summary - old[plan.fold], plan.fold_weight)
        keeps = (plan.keep, plan.position - old[plan.keep])
        self._run(store, store.committed(layer), (*keeps, *folds))

    def _run(self, store: KVStore, slab: tuple[View, View], indices: tuple[Array, ...]) -> None:
        keep, keep_delta, fold, fold_delta, fold_weight = indices
        inputs = {
            "keys": slab[0],
            "values": slab[1],
            "keep": self._keep.put(keep),
            "keep_delta": self._keep_delta.put(keep_delta),
            "fold": self._fold.put(fold),
            "fold_delta": self._fold_delta.put(fold_delta),
            "fold_weight": self._fold_weight.put(fold_weight),
        }
        written = len(keep) + 1
        outputs = {
            "new_keys": store.spare_keys.rows(0, written),
            "new_values": store.spare_values.rows(0, written),
        }
        self._call(self._engine, inputs, outputs)


def _is_identity(plan: LayerPlan, rows: LayerRows) -> bool:
    return (
        len(plan.keep) == len(rows)
        and plan.summary_position is None
        and bool(np.array_equal(plan.position, rows.position))
    )
