"""Accuracies and pairs against textbook values and slow references."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from hermes_edge.recall.statistics import accuracy, bootstrap, compare, mcnemar, wilson


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [
        # Newcombe 1998, table I, method 3 (Wilson without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_wilsons(right: int, asked: int, low: float, high: float) -> None:
    found = accuracy([True] * right + [False] * (asked - right))
    assert (found.right, found.asked) == (right, asked)
    assert found.interval == pytest.approx((low, high), abs=5e-5)


def test_what_could_not_be_asked_does_not_count() -> None:
    found = accuracy([True, None, False, None])
    assert (found.right, found.asked, found.share) == (1, 2, 0.5)
    nothing = accuracy([None, None])
    assert math.isnan(nothing.share) and all(map(math.isnan, nothing.interval))


@pytest.mark.parametrize("total", range(9))
def test_mcnemar_counts_every_way_to_fall(total: int) -> None:
    for first in range(total + 1):
        far = abs(2 * first - total)
        ways = [sum(way) for way in itertools.product((0, 1), repeat=total)]
        extreme = sum(abs(2 * way - total) >= far for way in ways)
        assert mcnemar(first, total - first) == pytest.approx(extreme / len(ways))


def test_pairs_are_counted_where_both_were_asked() -> None:
    first = [True, True, False, None, True, False]
    second = [True, False, True, True, None, False]
    found = compare(first, second, [1, 1, 2, 2, 3, 3])
    assert found is not None
    assert (found.asked, found.first_only, found.second_only) == (4, 1, 1)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert compare([None, True], [True, None], [1, 1]) is None


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    """Streams that are lost as a whole: questions alone would give far too narrow intervals."""
    chance = random.Random(0)
    covered, trials = 0, 300
    for trial in range(trials):
        first: list[bool | None] = []
        second: list[bool | None] = []
        streams: list[int] = []
        for stream in range(40):
            kept, also_kept = chance.random() < 0.7, chance.random() < 0.5
            for _ in range(10):
                first.append(kept and chance.random() < 0.9)
                second.append(also_kept and chance.random() < 0.9)
                streams.append(stream)
        found = compare(first, second, streams, seed=trial)
        assert found is not None
        low, high = found.interval
        assert low <= found.difference <= high
        covered += low <= 0.18 <= high
    # 95 %, less four standard deviations and what a percentile bootstrap of 40 streams loses.
    assert 0.88 < covered / trials <= 1


def test_equal_seeds_give_equal_intervals() -> None:
    answers = [random.Random(i).random() < 0.5 for i in range(100)]
    others = [random.Random(i + 500).random() < 0.5 for i in range(100)]
    streams = [i // 5 for i in range(100)]
    assert compare(answers, others, streams, 3) == compare(answers, others, streams, 3)


def test_wilson_ends_solve_the_score_equation() -> None:
    """The interval's ends are the shares p with (x/n - p)^2 = z^2 p (1 - p) / n."""
    for asked in (1, 2, 7, 100, 1440):
        for right in {0, 1, asked // 3, asked - 1, asked}:
            for end in wilson(right, asked):
                score = (right / asked - end) ** 2 - 3.841458820694124 * end * (1 - end) / asked
                assert 0 <= end <= 1
                assert score == pytest.approx(0, abs=1e-12)
    assert wilson(0, 9)[0] == 0.0
    assert wilson(9, 9)[1] == 1.0


def test_mcnemar_of_many_questions_stays_a_number() -> None:
    assert mcnemar(5, 15) == pytest.approx(0.04138947, abs=1e-8)
    assert mcnemar(0, 5000) == 0.0
    assert mcnemar(2500, 2500) == 1.0


def test_the_bootstrap_draws_whole_streams() -> None:
    """Three streams: all 27 draws, weighted alike, against the quantiles of many random ones."""
    first = np.array([1, 1, 0, 0, 1, 1], np.bool_)
    second = np.array([0, 0, 1, 0, 0, 1], np.bool_)
    streams = np.array([7, 7, 3, 3, 3, 9], np.int64)
    gains = {7: [1, 1], 3: [-1, 0, 1], 9: [0]}
    draws = []
    for draw in itertools.product(gains, repeat=3):
        drawn = [gain for stream in draw for gain in gains[stream]]
        draws.append(sum(drawn) / len(drawn))
    expected = [float(np.quantile(draws, q, method="inverted_cdf")) for q in (0.025, 0.975)]
    assert bootstrap(first, second, streams) == pytest.approx(expected)


def test_one_stream_tells_nothing_of_the_spread() -> None:
    found = compare([True, False], [False, False], [1, 1])
    assert found is not None
    assert all(map(math.isnan, found.interval))
