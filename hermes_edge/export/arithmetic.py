"""Score and compact in numpy and float64: what the two graphs without weights are held against.

Written from the definitions, one head and one row at a time where that is plainer.
"""

from __future__ import annotations

import numpy as np

from hermes_edge.engines.views import Array


def rotate(rows: Array, positions: Array, theta: float) -> Array:
    """Rows [n, heads, D] turned by ``positions`` [n]: the first half of a head with the second."""
    half = rows.shape[-1] // 2
    frequencies = theta ** (-np.arange(half) / half)
    turn = np.exp(1j * positions[:, None, None] * frequencies)
    turned = (rows[..., :half] + 1j * rows[..., half:].astype(np.float64)) * turn
    rotated: Array = np.concatenate((turned.real, turned.imag), axis=-1)
    return rotated


def score(queries: Array, keys: Array, probe_keys: Array, visible: Array) -> Array:
    """Mean over heads and probe rows of the softmax over [keys ; visible probe keys]; [S]."""
    probes, heads, size = queries.shape
    group = heads // keys.shape[1]
    total = np.zeros(len(keys))
    for head in range(heads):
        columns = np.concatenate((keys, probe_keys))[:, head // group].astype(np.float64)
        logits = queries[:, head].astype(np.float64) @ columns.T / np.sqrt(size)
        logits[:, len(keys) :][~visible] = -np.inf
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        total += (weights / weights.sum(axis=1, keepdims=True))[:, : len(keys)].sum(axis=0)
    mean: Array = total / (heads * probes)
    return mean


def compact(rows: dict[str, Array], theta: float) -> tuple[Array, Array]:
    """New keys and values [K+1, Hkv, D] of the graph's inputs by name."""
    keys, values = rows["keys"], rows["values"]
    weight = rows["fold_weight"].astype(np.float64)[:, None, None]
    kept = rotate(keys[rows["keep"]], rows["keep_delta"], theta)
    folded = rotate(keys[rows["fold"]], rows["fold_delta"], theta)
    summary_key = (weight * folded).sum(axis=0, keepdims=True)
    summary_value = (weight * values[rows["fold"]]).sum(axis=0, keepdims=True)
    new_values = np.concatenate((values[rows["keep"]].astype(np.float64), summary_value))
    return np.concatenate((kept, summary_key)), new_values
