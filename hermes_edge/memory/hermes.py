"""The hierarchical memory: the paper's, and the released code's to the letter.

Two parameter sets of one policy. ``HERMES`` is the paper with the released code's defects mended:
probes are scored by a true causal forward, nothing is scored or folded below the budget, positions
are re-indexed *before* a chunk would cross the model's limit.
``RELEASED`` is what the authors' code for LLaVA-OneVision does, so that figures can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hermes_edge.memory.bands import Band, Bands
from hermes_edge.memory.base import (
    Float32Array,
    LayerPlan,
    LayerRows,
    Plan,
    ProbeKind,
    Scoring,
)
from hermes_edge.memory.plans import (
    keep_all,
    keep_and_fold,
    keep_only,
    last_position,
    prefix_length,
    reindexed,
    require_budget,
)
from hermes_edge.memory.positions import PositionLimit
from hermes_edge.memory.scoring import blend, normalise, recency, smooth, top_rows

Reindexing = Literal["lazy", "eager"]

Smoothing = Literal["recursive", "one-step"]
"""With the deeper layer's smoothed score (released code), or its raw one (paper, to the letter)."""

# Rate of the sensory layers' exponential; the paper leaves it open, this is the released value.
SENSORY_RATE = 20.0

# g of the smoothing, by the type of the layer that is smoothed (paper section 3.3).
SMOOTHING: dict[Band, float] = {"sensory": 0.1, "working": 0.3, "long-term": 0.4}

# The released code re-indexes when a position comes this close to the model's limit.
RELEASED_MARGIN = 1024


@dataclass(frozen=True, slots=True)
class HermesParams:
    """What distinguishes the variants.

    Attributes:
        name: as given on the command line.
        scoring: causal forward of the probes, or the released shortcut over raw embeddings.
        reindexing: only when positions run out, or at every compaction.
        recency_weight: w of the first working layer, and how much it falls to the deepest.
        recency_rate: k likewise.
        smoothing: with the deeper layer's smoothed score, or with its raw one.
        released: trigger, folding and position check of the released code.
        weighted_summary: average folded rows by how many tokens they stand for.
    """

    name: str = "hermes"
    scoring: Scoring = "forward"
    reindexing: Reindexing = "lazy"
    recency_weight: tuple[float, float] = (0.75, 0.6)
    recency_rate: tuple[float, float] = (20.0, 19.5)
    # One step costs 2 to 8 points of recall on hermes-tiny (docs/log.md, 2026-11-25).
    smoothing: Smoothing = "recursive"
    released: bool = False
    weighted_summary: bool = False


HERMES = HermesParams()


def released(scoring: Scoring = "embedding", reindexing: Reindexing = "lazy") -> HermesParams:
    """The released code for LLaVA-OneVision."""
    return HermesParams(
        name="hermes-released",
        scoring=scoring,
        reindexing=reindexing,
        recency_weight=(1.0, 0.9),
        released=True,
    )


class HermesPolicy:
    """Sensory, working and long-term layers, each with its own score (paper section 3)."""

    def __init__(
        self, params: HermesParams, layers: int, budget_rows: int, limit: PositionLimit
    ) -> None:
        """Raises BudgetError for a budget that keeps nothing, or too few layers."""
        require_budget(budget_rows)
        self._params, self._budget, self._limit = params, budget_rows, limit
        self._bands = Bands.of(layers)
        self.name = params.name
        self.scoring = params.scoring
        self.bands: tuple[str, ...] = self._bands.names()

    def probe_kind(self, layer: int) -> ProbeKind | None:
        """Sensory layers forget by age alone."""
        band = self._bands.band(layer)
        if band == "sensory":
            return None
        return ProbeKind.WORKING if band == "working" else ProbeKind.LONG_TERM

    def needs_scores(self, rows: Sequence[LayerRows], incoming_rows: int) -> bool:
        """Above budget; the released code counts the prefix of layer 0 too, and that layer only."""
        if self._params.released:
            return len(rows[0]) + incoming_rows > self._budget
        return any(len(r) - prefix_length(r) + incoming_rows > self._budget for r in rows)

    def make_room(self, rows: Sequence[LayerRows], incoming_rows: int) -> Plan | None:
        """Re-index all layers where one of them would cross the position limit."""
        if self._params.released:
            return None
        return self._limit.make_room(rows, incoming_rows)

    def plan(
        self, rows: Sequence[LayerRows], attention: Sequence[Float32Array | None]
    ) -> Plan | None:
        """Keep the best rows of every layer; long-term layers fold the rest into a summary."""
        if not self.needs_scores(rows, 0):
            return None
        scores = self.scores(rows, attention)
        plan = tuple(map(self._layer_plan, range(len(rows)), rows, scores))
        return tuple(map(reindexed, plan)) if self._reindexes(rows, plan) else plan

    def scores(
        self, rows: Sequence[LayerRows], attention: Sequence[Float32Array | None]
    ) -> list[Float32Array]:
        """Smoothed scores of every layer's visual rows; ``attention`` as in :meth:`plan`."""
        raw = [
            self._raw_scores(layer, r, a)
            for layer, (r, a) in enumerate(zip(rows, attention, strict=True))
        ]
        shares = [SMOOTHING[self._bands.band(layer)] for layer in range(len(rows))]
        return smooth(raw, shares, recursive=self._params.smoothing == "recursive")

    def _reindexes(self, rows: Sequence[LayerRows], plan: Plan) -> bool:
        if self._params.reindexing == "eager":
            return True
        if self._params.released:
            # The released code looks at the rows before the compaction, in any layer.
            last = max(layer.next_position for layer in rows) - 1
            return last > self._limit.max_positions - RELEASED_MARGIN
        last = max(map(last_position, plan))
        # A summary may stand one position behind the chunk: where the reserve begins.
        return last + self._limit.reserve_rows >= self._limit.max_positions

    def _raw_scores(
        self, layer: int, rows: LayerRows, attention: Float32Array | None
    ) -> Float32Array:
        prefix = prefix_length(rows)
        visual = len(rows) - prefix
        band = self._bands.band(layer)
        if band == "sensory":
            return normalise(recency(visual, SENSORY_RATE))
        if attention is None:
            raise ValueError(f"layer {layer} needs scores")
        if band == "long-term":
            return normalise(attention[prefix:])
        depth = self._bands.depth(layer)
        weight, weight_fall = self._params.recency_weight
        rate, rate_fall = self._params.recency_rate
        recent = recency(visual, rate - rate_fall * depth)
        return blend(attention[prefix:], recent, weight - weight_fall * depth)

    def _layer_plan(self, layer: int, rows: LayerRows, scores: Float32Array) -> LayerPlan:
        prefix = prefix_length(rows)
        visual = len(rows) - prefix
        folds = self._bands.band(layer) == "long-term"
        # The released code folds one row already where the budget is exactly full.
        fits = visual < self._budget if folds and self._params.released else visual <= self._budget
        if fits:
            return keep_all(rows)
        best = prefix + top_rows(scores, self._budget - folds)
        keep = np.concatenate([np.arange(prefix, dtype=np.int64), best])
        if folds:
            return keep_and_fold(rows, keep, weighted=self._params.weighted_summary)
        return keep_only(rows, keep)
