"""Carries a policy's plan out in the slabs: layer by layer into the spare pair, then a swap."""

from __future__ import annotations

import numpy as np

from hermes_edge.engines import Device, Engine
from hermes_edge.memory import apply_plan
from hermes_edge.memory.base import LayerPlan, LayerRows, Plan
from hermes_edge.runtime.decoding import EngineCall, Staging
from hermes_edge.runtime.store import KVStore


class Compactor:
    """Index staging and the ``compact`` engine; the only writer of committed rows."""

    def __init__(
        self, engine: Engine, call: EngineCall, device: Device, capacity_rows: int
    ) -> None:
        self._engine, self._call = engine, call
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
                self._compact_layer(store, layer, layer_plan)
                store.adopt_spare(layer, apply_plan(rows, layer_plan))

    def _compact_layer(self, store: KVStore, layer: int, plan: LayerPlan) -> None:
        old = store.rows[layer].position
        summary = 0 if plan.summary_position is None else plan.summary_position
        keys, values = store.committed(layer)
        inputs = {
            "keys": keys,
            "values": values,
            "keep": self._keep.put(plan.keep),
            "keep_delta": self._keep_delta.put(plan.position - old[plan.keep]),
            "fold": self._fold.put(plan.fold),
            "fold_delta": self._fold_delta.put(summary - old[plan.fold]),
            "fold_weight": self._fold_weight.put(plan.fold_weight),
        }
        written = len(plan.keep) + 1
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
