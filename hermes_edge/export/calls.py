"""Calling engines with plain arrays; a small decoder loop on caches that grow by copying.

The plainest way to run the graphs, slow on purpose: what faster ways are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hermes_edge.contract import is_static, past_key, past_value, present_key, present_value
from hermes_edge.engines import Engine, host_view
from hermes_edge.engines.views import Array
from hermes_edge.spec import DecoderSpec


def call(engine: Engine, inputs: Mapping[str, Array], **lengths: int) -> dict[str, Array]:
    """Run with fresh outputs.

    Args:
        engine: any graph on the CPU.
        inputs: every input by name, cast to the contract's dtypes here.
        lengths: lengths of output axes that no input has; ``tokens`` is F*N, ``kept`` is K+1.

    Raises:
        EngineError: a tensor's shape is not what the graph takes or makes.
    """
    arrays: dict[str, Array] = {}
    axes: dict[str, int] = {}
    for tensor in engine.graph.inputs:
        array = np.ascontiguousarray(inputs[tensor.name], dtype=tensor.dtype)
        arrays[tensor.name] = array
        named = (pair for pair in zip(tensor.axes, array.shape, strict=True))
        axes |= {axis: length for axis, length in named if isinstance(axis, str)}
    axes |= {{"tokens": "F*N", "kept": "K+1"}[name]: length for name, length in lengths.items()}
    outputs = {
        tensor.name: np.empty(
            [axes[axis] if isinstance(axis, str) else axis for axis in tensor.axes], tensor.dtype
        )
        for tensor in engine.graph.outputs
    }
    engine.run(
        {name: host_view(array) for name, array in arrays.items()},
        {name: host_view(array) for name, array in outputs.items()},
    )
    return outputs


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass gave: logits [R, V], probe queries [L, P, Hq, D], new rows [L, T, Hkv, D]."""

    logits: Array
    queries: Array
    keys: Array
    values: Array


class Caches:
    """Keys and values [L, S, Hkv, D] of a decoder that sees rows at positions 0, 1, 2, ..."""

    def __init__(self, engine: Engine, spec: DecoderSpec, unseen_rows: int = 0) -> None:
        """No rows yet.

        Args:
            engine: of the decoder.
            spec: of the decoder.
            unseen_rows: rows of noise that are bound behind each layer's own where the decoder is
                a static one, which must not see them.
        """
        self.engine = engine
        self.spec = spec
        head = (spec.kv_heads, spec.head_size)
        empty = np.zeros((spec.layers, 0, *head), np.float32)
        self.keys, self.values = empty, empty
        noise_rows = unseen_rows if is_static(engine.graph.inputs) else 0
        noise = np.random.default_rng(6).normal(size=(noise_rows, *head))
        self._unseen = noise.astype(np.float32)

    def run(
        self,
        embeds: Array,
        *,
        segments: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        logit_rows: Sequence[int] = (),
        probe_rows: Sequence[int] = (),
        past_rows: Sequence[int] | None = None,
    ) -> Pass:
        """One pass of rows [T, E] behind the caches, which it does not change.

        A static decoder may see the first ``past_rows`` [L] of each layer's rows alone.
        """
        rows, start, layers = len(embeds), self.keys.shape[1], self.spec.layers
        at = np.arange(start, start + rows) if positions is None else np.array(positions)
        seen = [start] * layers if past_rows is None else past_rows
        inputs: dict[str, Array] = {
            "inputs_embeds": embeds,
            "position_ids": np.broadcast_to(at, (layers, rows)),
            "segment_ids": np.zeros(rows) if segments is None else np.array(segments),
            "logit_rows": np.array(logit_rows, np.int64),
            "probe_rows": np.array(probe_rows, np.int64),
            "past_visible": np.array([start > 0]),
            "past_rows": np.array(seen),
        }
        for layer, count in enumerate(seen):
            inputs[past_key(layer)] = self._bound(self.keys[layer, :count])
            inputs[past_value(layer)] = self._bound(self.values[layer, :count])
        outputs = call(self.engine, inputs)
        return Pass(
            logits=outputs["logits"],
            queries=outputs["probe_queries"],
            keys=np.stack([outputs[present_key(layer)] for layer in range(layers)]),
            values=np.stack([outputs[present_value(layer)] for layer in range(layers)]),
        )

    def _bound(self, rows: Array) -> Array:
        """The rows with the unseen ones behind them; one row of zeros where there is none."""
        bound = np.concatenate((rows, self._unseen))
        return bound if len(bound) else np.zeros((1, *bound.shape[1:]), np.float32)

    def append(self, done: Pass) -> None:
        """Keep the rows of a pass."""
        self.keys = np.concatenate((self.keys, done.keys), axis=1)
        self.values = np.concatenate((self.values, done.values), axis=1)
