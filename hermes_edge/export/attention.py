"""Attention to cached and new rows apart, joined by their sums of exponentials.

No cache, score or weight is copied to be joined with another: such copies cost more time than the
joining, and workspace.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Finite: where no cached row counts, weights and log sum must stay numbers.
_UNSEEN = -1e30


def attend(
    queries: Tensor,
    past_keys: Tensor,
    past_values: Tensor,
    past_visible: Tensor,
    keys: Tensor,
    values: Tensor,
    block_mask: Tensor,
    past_mask: Tensor | None = None,
) -> Tensor:
    """Grouped-query attention of Q rows to S cached and T new ones; softmax in fp32.

    Without ``past_mask`` every row sees the whole past, and no mask touches its scores.

    Args:
        queries: [Q, Hq, D], rotated.
        past_keys, past_values: [S, Hkv, D], at least one row.
        past_visible: bool [1], whether the past counts.
        keys, values: [T, Hkv, D], the keys rotated.
        block_mask: fp32 [Q, T], 0 where row i sees new row j, else -inf; no row all -inf.
        past_mask: bool [S], which cached rows count; None: all of them.

    Returns:
        [Q, Hq * D].
    """
    rows, query_heads, head_size = queries.shape
    kv_heads = keys.shape[1]
    grouped = group_heads(queries, kv_heads)
    past_scores = scores(grouped, past_keys)
    if past_mask is not None:
        past_scores = past_scores.where(past_mask, torch.full((1,), _UNSEEN))
    past, past_log_sum = softmax(past_scores)
    new, new_log_sum = softmax(masked(scores(grouped, keys), block_mask))
    share = share_of(past_log_sum, new_log_sum).where(past_visible, torch.zeros(1))
    past_mixed, new_mixed = (
        (weights.to(queries.dtype) @ side.permute(1, 0, 2)).to(torch.float32)
        for weights, side in ((past, past_values), (new, values))
    )
    mixed = (past_mixed * share + new_mixed * (1.0 - share)).to(queries.dtype)
    mixed = mixed.view(kv_heads, -1, rows, head_size).permute(2, 0, 1, 3)
    return mixed.reshape(rows, query_heads * head_size)


def group_heads(queries: Tensor, kv_heads: int) -> Tensor:
    """[Q, Hq, D] to [Hkv, Hq/Hkv * Q, D], scaled: the rows of all heads that share a key head."""
    rows, query_heads, head_size = queries.shape
    group = query_heads // kv_heads
    # In fp32: the factor itself would be rounded to the queries' precision.
    scaled = (queries.to(torch.float32) * (1.0 / math.sqrt(head_size))).to(queries.dtype)
    grouped = scaled.view(rows, kv_heads, group, head_size)
    return grouped.permute(1, 2, 0, 3).reshape(kv_heads, group * rows, head_size)


def scores(grouped: Tensor, keys: Tensor) -> Tensor:
    """Grouped queries [Hkv, M, D] times keys [S, Hkv, D]: fp32 [Hkv, M, S]."""
    return (grouped @ keys.permute(1, 2, 0)).to(torch.float32)


def masked(grouped_scores: Tensor, mask: Tensor) -> Tensor:
    """[Hkv, group * Q, T] with fp32 [Q, T] added to each of the group's heads."""
    heads, grouped_rows, columns = grouped_scores.shape
    split = grouped_scores.view(heads, -1, mask.shape[0], columns) + mask
    return split.view(heads, grouped_rows, columns)


def softmax(grouped_scores: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of [Hkv, M, S], and log(sum(exp(score))) [Hkv, M, 1].

    The largest weight is exp(largest score - log sum) and at least 1/S, so its logarithm is exact,
    and two maxima cost less than exponentials written out to be summed.
    """
    weights = grouped_scores.softmax(dim=-1)
    largest = grouped_scores.amax(dim=-1, keepdim=True)
    return weights, largest - weights.amax(dim=-1, keepdim=True).log()


def share_of(log_sum: Tensor, other_log_sum: Tensor) -> Tensor:
    """What one side weighs in a softmax over both."""
    return (log_sum - other_log_sum).sigmoid()
