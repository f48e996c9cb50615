"""The model's position limit: memories are re-indexed before they would cross it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hermes_edge.errors import BudgetError
from hermes_edge.memory.base import LayerRows, Plan
from hermes_edge.memory.plans import keep_all, reindexed


@dataclass(frozen=True, slots=True)
class PositionLimit:
    """Positions 0 to ``max_positions`` - 1 exist; ``reserve_rows`` stay free for a question."""

    max_positions: int
    reserve_rows: int

    def make_room(self, rows: Sequence[LayerRows], incoming_rows: int) -> Plan | None:
        """Re-index all layers if a chunk would not fit behind the furthest one, else None.

        Raises:
            BudgetError: it would not fit even then.
        """
        needed = incoming_rows + self.reserve_rows
        if max(layer.next_position for layer in rows) + needed <= self.max_positions:
            return None
        longest = max(map(len, rows))
        if longest + needed > self.max_positions:
            raise BudgetError(
                "the memory does not fit the model's positions",
                required=f"at most {self.max_positions}",
                found=f"{longest} rows, {incoming_rows} to come, {self.reserve_rows} in reserve",
                fix="Lower the budget, the chunk or the reserve",
            )
        return tuple(reindexed(keep_all(layer)) for layer in rows)
