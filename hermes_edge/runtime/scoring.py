"""Scores of every layer's rows, as the probes' attention to them.

*Forward* scoring reads the queries that the decoder handed out for probe rows of its own pass; the
probes' keys lie in the scratch rows behind the memory. *Embedding* scoring is the released code's
shortcut: each layer's query and key come from the raw token embedding, and probe rows see each
other without a causal mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_edge.engines import Device, EmbeddingTable, Engine, View
from hermes_edge.memory.base import Float32Array, Policy, ProbeKind
from hermes_edge.runtime.decoding import EngineCall, OwnTurn, Staging
from hermes_edge.runtime.store import KVStore
from hermes_edge.spec import PRECISION_DTYPE, DecoderSpec, Precision


@dataclass(frozen=True, slots=True)
class ProbeTokens:
    """Token ids of the two probes."""

    working: tuple[int, ...]
    long_term: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.working) + len(self.long_term)

    def apart(self) -> tuple[ProbeTokens, ProbeTokens]:
        """Each probe on its own."""
        return ProbeTokens(self.working, ()), ProbeTokens((), self.long_term)

    def span(self, kind: ProbeKind) -> tuple[int, int]:
        """First and last-plus-one row of a probe, working rows before long-term rows."""
        cut = len(self.working)
        return (0, cut) if kind is ProbeKind.WORKING else (cut, len(self))

    def segments(self) -> list[int]:
        """Segment of each row: neither probe sees the other."""
        return [1] * len(self.working) + [2] * len(self.long_term)

    def offsets(self) -> list[int]:
        """Position of each row, counted from the next position: both probes start there."""
        return [*range(len(self.working)), *range(len(self.long_term))]


class Scorer:
    """The ``score`` engine, and ``embedding_probe`` where the policy asks for it."""

    def __init__(
        self,
        score: Engine,
        embedding_probe: Engine | None,
        call: EngineCall,
        device: Device,
        decoder: DecoderSpec,
        precision: Precision,
        limits: tuple[int, int],
        turn: OwnTurn,
    ) -> None:
        """``limits``: most rows of a slab, most probe rows; ``turn`` is taken for every call."""
        capacity, probes = limits
        dtype = PRECISION_DTYPE[precision]
        self._score = score
        self._embedding_probe = embedding_probe
        self._call, self._device, self._decoder = call, device, decoder
        self._turn = turn
        self._scores = Staging(device, capacity, "float32")
        self._visible = Staging(device, probes * probes, "bool")
        # Embedding scoring makes the queries of all layers at once; warming up takes one layer's.
        layers = decoder.layers if embedding_probe is not None else 1
        head = probes * decoder.head_size
        self._queries = Staging(device, layers * head * decoder.query_heads, dtype)
        self._keys = Staging(device, decoder.layers * head * decoder.kv_heads, dtype)
        self._embeds = Staging(device, probes * decoder.embedding_width, dtype)
        self._positions = Staging(device, decoder.layers * probes, "int64")

    def from_queries(
        self, store: KVStore, policy: Policy, tokens: ProbeTokens, queries: View
    ) -> list[Float32Array | None]:
        """Forward scoring; the probes' rows are the first scratch rows, until this is called.

        Args:
            store: the memory, with everything committed that is to be scored.
            policy: says which probe scores a layer.
            tokens: the probes that ran; layers of a probe that is empty get no scores.
            queries: [L, P, Hq, D], as the decoder handed them out.
        """
        probe_keys = self._take_keys(store, len(tokens))
        scores: list[Float32Array | None] = []
        for layer in range(self._decoder.layers):
            kind = policy.probe_kind(layer)
            start, stop = tokens.span(kind) if kind is not None else (0, 0)
            if start == stop:
                scores.append(None)
                continue
            visible = np.tri(stop - start, dtype=np.bool_)
            layer_queries = _layer(queries, layer).rows(start, stop)
            layer_keys = _layer(probe_keys, layer).rows(start, stop)
            scores.append(self._score_layer(store, layer, layer_queries, layer_keys, visible))
        return scores

    def from_embeddings(
        self, store: KVStore, policy: Policy, tokens: ProbeTokens, table: EmbeddingTable
    ) -> list[Float32Array | None]:
        """Embedding scoring, as the released code does it."""
        scores: list[Float32Array | None] = [None] * self._decoder.layers
        for kind, ids in (
            (ProbeKind.WORKING, tokens.working),
            (ProbeKind.LONG_TERM, tokens.long_term),
        ):
            queries, keys = self._embed_probe(store, ids, table)
            visible = np.ones((len(ids), len(ids)), dtype=np.bool_)
            for layer in range(self._decoder.layers):
                if policy.probe_kind(layer) is kind:
                    scores[layer] = self._score_layer(
                        store, layer, _layer(queries, layer), _layer(keys, layer), visible
                    )
        return scores

    def warm_up(self, store: KVStore, probe_rows: int) -> None:
        """The largest call once, so that all workspace is claimed now."""
        decoder = self._decoder
        keys, _ = store.slab(0)
        queries = self._queries.view(probe_rows, decoder.query_heads, decoder.head_size)
        visible = np.tri(probe_rows, dtype=np.bool_)
        rows = keys.shape[0]
        self._run(queries, keys.rows(0, rows - probe_rows), keys.rows(0, probe_rows), visible)

    def _take_keys(self, store: KVStore, count: int) -> View:
        """Keys [L, P, Hkv, D] of the first scratch rows, which a question may overwrite."""
        decoder = self._decoder
        taken = self._keys.view(decoder.layers, count, decoder.kv_heads, decoder.head_size)
        for layer in range(decoder.layers):
            self._device.copy(store.scratch_keys(layer, 0, count), _layer(taken, layer))
        return taken

    def _embed_probe(
        self, store: KVStore, ids: Sequence[int], table: EmbeddingTable
    ) -> tuple[View, View]:
        if self._embedding_probe is None:
            raise RuntimeError("embedding scoring without its engine")
        decoder, count = self._decoder, len(ids)
        queries = self._queries.view(decoder.layers, count, decoder.query_heads, decoder.head_size)
        keys = self._keys.view(decoder.layers, count, decoder.kv_heads, decoder.head_size)
        inputs = {
            "inputs_embeds": self._embeds.put(table.lookup(ids)),
            "position_ids": self._positions.put(store.positions(count)),
        }
        outputs = {"probe_queries": queries, "probe_keys": keys}
        with self._turn():
            self._call(self._embedding_probe, inputs, outputs)
        return queries, keys

    def _score_layer(
        self,
        store: KVStore,
        layer: int,
        queries: View,
        probe_keys: View,
        visible: npt.NDArray[np.bool_],
    ) -> Float32Array:
        with self._turn():
            keys, _ = store.committed(layer)
            return self._run(queries, keys, probe_keys, visible)

    def _run(
        self, queries: View, keys: View, probe_keys: View, visible: npt.NDArray[np.bool_]
    ) -> Float32Array:
        scores = self._scores.view(keys.shape[0])
        inputs = {
            "queries": queries,
            "keys": keys,
            "probe_keys": probe_keys,
            "visible": self._visible.put(visible),
        }
        self._call(self._score, inputs, {"scores": scores})
        result: Float32Array = self._device.download(scores).copy()
        return result


def _layer(stacked: View, layer: int) -> View:
    return stacked.rows(layer, layer + 1).reshape(*stacked.shape[1:])
