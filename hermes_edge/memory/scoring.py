"""Importance of a layer's visual rows: recency, attention, and smoothing across layers.

All arrays are float32 [n], over the n visual rows of one layer from oldest to newest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_edge.memory.base import Float32Array, Int64Array

_EPSILON = 1e-6


def recency(rows: int, rate: float) -> Float32Array:
    """exp(-rate * d); d runs from 1 for the oldest row to 0 for the newest (paper eq. 2)."""
    distance = np.arange(rows - 1, -1, -1, dtype=np.float32) / max(rows - 1, 1)
    return np.exp(-np.float32(rate) * distance, dtype=np.float32)


def normalise(values: Float32Array) -> Float32Array:
    """(x - min) / (max - min + 1e-6), as the released code does for attention and recency."""
    low = values.min()
    scaled: Float32Array = (values - low) / (values.max() - low + np.float32(_EPSILON))
    return scaled


def blend(attention: Float32Array, recent: Float32Array, recency_weight: float) -> Float32Array:
    """(1 - w) A + w R, both normalised (paper eq. 3)."""
    weight = np.float32(recency_weight)
    blended: Float32Array = (1 - weight) * normalise(attention) + weight * normalise(recent)
    return blended


def stretch(values: Float32Array, rows: int) -> Float32Array:
    """Linear interpolation to another length, ends not aligned (as torch's ``interpolate``)."""
    if len(values) == rows:
        return values
    centres = (np.arange(rows) + 0.5) * (len(values) / rows) - 0.5
    stretched = np.interp(centres, np.arange(len(values)), values)
    as_float: Float32Array = stretched.astype(np.float32)
    return as_float


def smooth(
    scores: Sequence[Float32Array], shares: Sequence[float], *, recursive: bool
) -> list[Float32Array]:
    """S~_l = (1 - g) S_l + g S_(l+1); the last layer stays as it is (paper eq. 5).

    Args:
        scores: per layer.
        shares: g of every layer.
        recursive: use the deeper layer's *smoothed* score, as the released code does in place.
    """
    smoothed = list(scores)
    for layer in range(len(scores) - 2, -1, -1):
        deeper = smoothed[layer + 1] if recursive else scores[layer + 1]
        share = np.float32(shares[layer])
        own = scores[layer]
        smoothed[layer] = (1 - share) * own + share * stretch(deeper, len(own))
    return smoothed


def top_rows(scores: Float32Array, count: int) -> Int64Array:
    """Indices of the ``count`` largest scores, ascending; of equal scores the newer one wins."""
    newest_first = len(scores) - 1 - np.argsort(-scores[::-1], kind="stable")
    return np.sort(newest_first[:count]).astype(np.int64)
