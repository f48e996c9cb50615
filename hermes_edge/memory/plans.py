"""Building plans, and what rows are after one."""

from __future__ import annotations

import numpy as np

from hermes_edge.errors import BudgetError
from hermes_edge.memory.base import (
    PREFIX_FRAME,
    SUMMARY_FRAME,
    Float32Array,
    Float64Array,
    Int64Array,
    LayerPlan,
    LayerRows,
)

_NO_ROWS: Int64Array = np.empty(0, dtype=np.int64)
_NO_WEIGHTS: Float32Array = np.empty(0, dtype=np.float32)


def keep_only(rows: LayerRows, keep: Int64Array) -> LayerPlan:
    """Keep these rows where they are and drop the others."""
    return LayerPlan(keep, rows.position[keep], _NO_ROWS, _NO_WEIGHTS, None)


def keep_all(rows: LayerRows) -> LayerPlan:
    """Change nothing."""
    return keep_only(rows, np.arange(len(rows), dtype=np.int64))


def keep_and_fold(rows: LayerRows, keep: Int64Array, *, weighted: bool) -> LayerPlan:
    """Keep these rows and fold all others into a summary behind the last of them.

    Args:
        rows: the layer, at least one row of it not in ``keep``.
        keep: int64 [K], ascending.
        weighted: average by how many tokens a row stands for, not row by row.
    """
    fold = np.setdiff1d(np.arange(len(rows), dtype=np.int64), keep, assume_unique=True)
    shares = rows.weight[fold] if weighted else np.ones(len(fold))
    position = rows.position[keep]
    return LayerPlan(
        keep=keep,
        position=position,
        fold=fold,
        fold_weight=(shares / shares.sum()).astype(np.float32),
        summary_position=int(position.max()) + 1 if len(position) else 0,
    )


def reindexed(plan: LayerPlan) -> LayerPlan:
    """The same rows at positions without gaps: 0, 1, 2, ... (the paper's 1-D map)."""
    kept = len(plan.keep)
    return LayerPlan(
        keep=plan.keep,
        position=np.arange(kept, dtype=np.int64),
        fold=plan.fold,
        fold_weight=plan.fold_weight,
        summary_position=None if plan.summary_position is None else kept,
    )


def last_position(plan: LayerPlan) -> int:
    """Largest position after the plan, -1 where nothing is left."""
    if plan.summary_position is not None:
        return plan.summary_position
    return int(plan.position[-1]) if len(plan.position) else -1


def apply_plan(rows: LayerRows, plan: LayerPlan) -> LayerRows:
    """Metadata after the plan; the summary stands last, for the tokens that its rows stood for."""
    position, frame = plan.position, rows.frame[plan.keep]
    time, weight = rows.time[plan.keep], rows.weight[plan.keep]
    if plan.summary_position is not None:
        folded = rows.weight[plan.fold]
        total = int(folded.sum())
        mean_time: Float64Array = (rows.time[plan.fold] * folded).sum() / total
        position = np.append(position, plan.summary_position)
        frame = np.append(frame, SUMMARY_FRAME)
        time = np.append(time, mean_time)
        weight = np.append(weight, total)
    return LayerRows(position, frame, time, weight)


def prefix_length(rows: LayerRows) -> int:
    """Rows of the prefix; they are the first ones."""
    return int(np.count_nonzero(rows.frame == PREFIX_FRAME))


def require_budget(budget_rows: int) -> None:
    """Refuse a budget that keeps nothing.

    Raises:
        BudgetError: fewer than one row.
    """
    if budget_rows < 1:
        raise BudgetError(
            "the budget keeps nothing",
            required="at least 1 token",
            found=budget_rows,
            fix="Raise the budget",
        )
