"""Accuracies with their uncertainty, and pairs of memories on the same questions.

    Q          questions that were asked
    right      bool [Q], whether a memory answered each of them right
    streams    int [Q], the stream that each was asked on

Sources:

- Interval of a share: E. B. Wilson, "Probable inference, the law of succession, and statistical
  inference", Journal of the American Statistical Association 22 (1927), 209-212.
- Test of a pair: Q. McNemar, "Note on the sampling error of the difference between correlated
  proportions or percentages", Psychometrika 12 (1947), 153-157, with the exact binomial
  distribution in place of his chi-square.
- Interval of a difference: the percentile bootstrap of B. Efron, "Bootstrap methods: another look
  at the jackknife", The Annals of Statistics 7 (1979), 1-26, on whole clusters as in C. A. Field
  and A. H. Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69
  (2007), 369-390.

Questions of one stream are not independent: what a memory has lost is lost to all of them. The
bootstrap therefore draws whole streams. Wilson's interval and McNemar's test take questions as
independent, and are the more optimistic for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

RESAMPLES = 10_000
_Z = 1.959963984540054  # of 95 %
# Streams drawn at once: bounds the memory, whatever their number.
_BLOCK = 1 << 20


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
        """As of :func:`wilson`."""
        return wilson(self.right, self.asked)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two memories on the questions that both could be asked.

    Attributes:
        first_only, second_only: discordant questions, right under one alone.
        difference: first accuracy minus second.
        interval: its 95 % interval; NaN where all questions are of one stream.
        p_value: as of :func:`mcnemar`.
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

    Raises:
        ValueError: the lengths differ.
    """
    pairs = [
        (a, b, stream)
        for a, b, stream in zip(first, second, streams, strict=True)
        if a is not None and b is not None
    ]
    if not pairs:
        return None
    ours, theirs = (np.array([pair[side] for pair in pairs], dtype=np.bool_) for side in (0, 1))
    first_only, second_only = discordant(ours, theirs)
    return Comparison(
        asked=len(pairs),
        first_only=first_only,
        second_only=second_only,
        difference=(first_only - second_only) / len(pairs),
        interval=bootstrap(ours, theirs, np.array([pair[2] for pair in pairs], np.int64), seed),
        p_value=mcnemar(first_only, second_only),
    )


def wilson(right: int, asked: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share; NaN where nothing was asked."""
    if not asked:
        return math.nan, math.nan
    share, z2 = right / asked, _Z * _Z
    middle = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = _Z / (1 + z2 / asked) * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked**2))
    # At the ends the formula gives 0 and 1 but for rounding.
    return (middle - half if right else 0.0), (middle + half if right < asked else 1.0)


def discordant(first: Bools, second: Bools) -> tuple[int, int]:
    """Questions right in ``first`` [Q] alone, and in ``second`` [Q] alone."""
    return int((first & ~second).sum()), int((~first & second).sum())


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value: discordant questions fall to either side with one half each."""
    total = first_only + second_only
    tail = term = 1
    for k in range(1, min(first_only, second_only) + 1):
        term = term * (total - k + 1) // k
        tail += term
    return min(1.0, float(2 * tail / (1 << total)))


def bootstrap(
    first: Bools, second: Bools, streams: Ints, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % interval of the accuracy of ``first`` [Q] minus that of ``second`` [Q].

    Args:
        first, second: right or wrong by question.
        streams: [Q], the stream of each question; whole streams are drawn with replacement.
        seed: equal seeds give equal intervals.
        resamples: how often all streams are drawn.

    Returns:
        The 2.5 % and 97.5 % quantiles; NaN for fewer than two streams.
    """
    gains = first.astype(np.int64) - second
    _, group = np.unique(streams, return_inverse=True)
    sizes = np.bincount(group)
    count = len(sizes)
    if count < 2:
        return math.nan, math.nan
    sums = np.bincount(group, weights=gains, minlength=count)
    chance = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(_BLOCK // count, 1)
    for start in range(0, resamples, step):
        drawn = chance.integers(0, count, (min(step, resamples - start), count))
        means[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
