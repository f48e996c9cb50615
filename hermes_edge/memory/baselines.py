"""Memories that look at no content: what every cleverer one has to beat."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from hermes_edge.errors import BudgetError
from hermes_edge.memory.base import (
    Float32Array,
    Int64Array,
    LayerRows,
    Plan,
    ProbeKind,
    Scoring,
)
from hermes_edge.memory.plans import keep_only, prefix_length, require_budget
from hermes_edge.memory.positions import PositionLimit

Selection = Callable[[Int64Array, int], Int64Array]
"""From the frame of each visual row int64 [n] and a budget to the rows to keep, ascending."""


def newest_rows(frames: Int64Array, budget_rows: int) -> Int64Array:
    """The last ``budget_rows`` rows."""
    return np.arange(len(frames) - budget_rows, len(frames), dtype=np.int64)


def spread_frames(frames: Int64Array, budget_rows: int) -> Int64Array:
    """Whole frames, spread over all the time seen so far.

    While too many rows are left, the frame goes whose neighbours stand closest together (the
    oldest of such); the first and the newest frame stay. So the budget is always used to the
    frame, and however long the stream is, gaps stay within a factor of three, but for the last:
    the newest frame may stand close behind its neighbour.
    """
    kept, sizes = np.unique(frames, return_counts=True)
    while sizes.sum() > budget_rows and len(kept) > 1:
        # With two frames left there is no inner one: the older goes.
        victim = 1 + int(np.argmin(kept[2:] - kept[:-2])) if len(kept) > 2 else 0
        kept, sizes = np.delete(kept, victim), np.delete(sizes, victim)
    rows = np.flatnonzero(np.isin(frames, kept)).astype(np.int64)
    return rows[-budget_rows:]


def random_rows(frames: Int64Array, budget_rows: int) -> Int64Array:
    """A uniform sample of all rows ever seen, as far as the earlier samples kept them.

    Of M rows kept and c that have come since, each of all T rows seen is kept with probability
    M/T: the number of new ones among M rows drawn from T decides how many of the c stay.
    Seeded with T, so that equal streams keep equal rows.
    """
    newest = int(frames[-1])
    seen = (newest + 1) * int(np.count_nonzero(frames == newest))
    chance, count = random.Random(seen), len(frames)
    come = count if count == seen else count - budget_rows
    stay = sum(row < come for row in chance.sample(range(seen), budget_rows))
    kept = chance.sample(range(count - come), budget_rows - stay)
    kept += chance.sample(range(count - come, count), stay)
    return np.array(sorted(kept), dtype=np.int64)


class SelectionPolicy:
    """Prefix and a selection of rows, the same in every layer."""

    scoring: Scoring = "forward"

    def __init__(
        self, name: str, select: Selection, layers: int, budget_rows: int, limit: PositionLimit
    ) -> None:
        """Raises BudgetError for a budget that keeps nothing."""
        require_budget(budget_rows)
        self.name = name
        self.bands = ("all",) * layers
        self._select, self._budget, self._limit = select, budget_rows, limit

    def probe_kind(self, layer: int) -> ProbeKind | None:
        """Nothing is scored."""
        return None

    def needs_scores(self, rows: Sequence[LayerRows], incoming_rows: int) -> bool:
        """Never."""
        return False

    def make_room(self, rows: Sequence[LayerRows], incoming_rows: int) -> Plan | None:
        """Re-index where positions would run out."""
        return self._limit.make_room(rows, incoming_rows)

    def plan(
        self, rows: Sequence[LayerRows], attention: Sequence[Float32Array | None]
    ) -> Plan | None:
        """Keep the selection once the budget is exceeded."""
        prefix = prefix_length(rows[0])
        if len(rows[0]) - prefix <= self._budget:
            return None
        best = prefix + self._select(rows[0].frame[prefix:], self._budget)
        keep = np.concatenate([np.arange(prefix, dtype=np.int64), best])
        return tuple(keep_only(layer, keep) for layer in rows)


class FullPolicy:
    """No eviction: the reference for short streams, and an error for long ones."""

    name = "full"
    scoring: Scoring = "forward"

    def __init__(self, layers: int, budget_rows: int, limit: PositionLimit) -> None:
        """Raises BudgetError for a budget that keeps nothing."""
        require_budget(budget_rows)
        self.bands = ("all",) * layers
        self._budget, self._limit = budget_rows, limit

    def probe_kind(self, layer: int) -> ProbeKind | None:
        """Nothing is scored."""
        return None

    def needs_scores(self, rows: Sequence[LayerRows], incoming_rows: int) -> bool:
        """Never."""
        return False

    def make_room(self, rows: Sequence[LayerRows], incoming_rows: int) -> Plan | None:
        """Refuse what does not fit.

        Raises:
            BudgetError: the memory is full, or the model's positions are used up.
        """
        visual = len(rows[0]) - prefix_length(rows[0])
        if visual + incoming_rows > self._budget:
            raise BudgetError(
                "the memory is full and the policy full never evicts",
                required=f"at most {self._budget} visual tokens",
                found=f"{visual} stored, {incoming_rows} to come",
                fix="Raise the budget, or choose a policy that evicts: hermes, window, uniform",
            )
        return self._limit.make_room(rows, incoming_rows)

    def plan(
        self, rows: Sequence[LayerRows], attention: Sequence[Float32Array | None]
    ) -> Plan | None:
        """Keep everything."""
        return None
