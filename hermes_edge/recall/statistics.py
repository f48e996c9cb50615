"""Accuracies with their uncertainty, and pairs of memories on the same questions.

Questions of one stream are not independent: what a memory has lost is lost to all of them.
Differences are therefore bootstrapped by whole streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Z = 1.959963984540054  # of 95 %
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of right answers with Wilson's 95 % interval; NaN where nothing was asked."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """Right answers of all."""
        return self.right / self.asked if self.asked else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval (1927)."""
        if not self.asked:
            return math.nan, math.nan
        n, p, z2 = self.asked, self.share, _Z * _Z
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two memories on the questions that both could be asked.

    Attributes:
        first_only, second_only: discordant questions, right under one alone.
        difference: first accuracy minus second, with its 95 % interval.
        p_value: exact two-sided McNemar test; it takes questions as independent.
    """

    asked: int
    first_only: int
    second_only: int
    difference: float
    interval: tuple[float, float]
    p_value: float


def accuracy(answers: Sequence[bool | None]) -> Accuracy:
    """Of the questions that could be asked."""
    known = [answer for answer in answers if answer is not None]
    return Accuracy(sum(known), len(known))


def compare(
    first: Sequence[bool | None],
    second: Sequence[bool | None],
    streams: Sequence[int],
    seed: int = 0,
) -> Comparison | None:
    """Two memories on the same questions; None where they share none.

    Args:
        first, second: right or wrong by question.
        streams: the stream of each question.
        seed: of the bootstrap.
    """
    pairs = [
        (a, b, stream)
        for a, b, stream in zip(first, second, streams, strict=True)
        if a is not None and b is not None
    ]
    if not pairs:
        return None
    ours, theirs = (np.array([pair[side] for pair in pairs], dtype=np.bool_) for side in (0, 1))
    first_only, second_only = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    gains = ours.astype(np.int64) - theirs
    return Comparison(
        asked=len(pairs),
        first_only=first_only,
        second_only=second_only,
        difference=float(gains.mean()),
        interval=_bootstrap(gains, np.array([pair[2] for pair in pairs]), seed),
        p_value=mcnemar(first_only, second_only),
    )


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value: discordant questions fall to either side with one half each."""
    total = first_only + second_only
    fewer = min(first_only, second_only)
    tail = sum(math.comb(total, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / (1 << total)))


def _bootstrap(
    gains: npt.NDArray[np.int64], streams: npt.NDArray[np.int64], seed: int
) -> tuple[float, float]:
    """95 % percentile interval of the mean gain, whole streams drawn with replacement."""
    _, group = np.unique(streams, return_inverse=True)
    sums = np.bincount(group, weights=gains)
    sizes = np.bincount(group)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
