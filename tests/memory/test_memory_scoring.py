"""Bands, schedules and scores, against a reference written with loops."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from hermes_edge.memory.bands import Bands
from hermes_edge.memory.base import PREFIX_FRAME, LayerRows, ProbeKind
from hermes_edge.memory.hermes import HERMES, HermesParams, HermesPolicy, Smoothing, released
from hermes_edge.memory.positions import PositionLimit
from hermes_edge.memory.scoring import blend, normalise, recency, smooth, stretch, top_rows

LAYERS = 10
PREFIX = 3
LIMIT = PositionLimit(max_positions=100_000, reserve_rows=0)


def _rows(visual: int) -> LayerRows:
    count = PREFIX + visual
    frame = np.r_[np.full(PREFIX, PREFIX_FRAME), np.arange(visual) // 4]
    ones = np.ones(count, dtype=np.int64)
    return LayerRows(np.arange(count), frame, np.zeros(count), ones)


def _attention(visual: int, seed: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.random(PREFIX + visual).astype(np.float32) for _ in range(LAYERS)]


def _min_max(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low + 1e-6) for value in values]


def _reference_scores(
    attention: list[list[float]], weight: tuple[float, float], recursive: bool
) -> list[list[float]]:
    """Ten layers: 0 sensory, 1 to 6 working, 7 to 9 long-term. Written row by row."""
    raw = []
    for layer, attended in enumerate(attention):
        n = len(attended)
        age = [(n - 1 - i) / max(n - 1, 1) for i in range(n)]
        if layer == 0:
            raw.append(_min_max([math.exp(-20 * d) for d in age]))
        elif layer >= 7:
            raw.append(_min_max(attended))
        else:
            p = (layer - 1) / 6
            w, k = weight[0] - weight[1] * p, 20 - 19.5 * p
            recent = _min_max([math.exp(-k * d) for d in age])
            seen = _min_max(attended)
            raw.append([(1 - w) * a + w * r for a, r in zip(seen, recent, strict=True)])
    result = [list(row) for row in raw]
    for layer in reversed(range(9)):
        g = 0.1 if layer == 0 else 0.3 if layer < 7 else 0.4
        source = result[layer + 1] if recursive else raw[layer + 1]
        for i, deeper in enumerate(source):
            result[layer][i] = (1 - g) * raw[layer][i] + g * deeper
    return result


@pytest.mark.parametrize(
    ("layers", "first_working", "first_long_term"),
    [(10, 1, 7), (24, 2, 16), (28, 2, 19), (36, 3, 25)],
)
def test_bands_are_those_of_the_released_code(
    layers: int, first_working: int, first_long_term: int
) -> None:
    bands = Bands.of(layers)
    assert (bands.first_working, bands.first_long_term) == (first_working, first_long_term)
    names = bands.names()
    assert names == (
        ("sensory",) * first_working
        + ("working",) * (first_long_term - first_working)
        + ("long-term",) * (layers - first_long_term)
    )
    assert bands.depth(first_working) == 0.0
    assert 0.0 < bands.depth(first_long_term - 1) < 1.0


@pytest.mark.parametrize(
    ("params", "weight", "recursive"),
    [
        (HERMES, (0.75, 0.6), True),
        (replace(HERMES, smoothing="one-step"), (0.75, 0.6), False),
        (released(), (1.0, 0.9), True),
    ],
    ids=["hermes", "one-step", "hermes-released"],
)
@pytest.mark.parametrize("visual", [2, 17, 120])
def test_scores_and_selection_equal_the_reference(
    params: HermesParams, weight: tuple[float, float], recursive: bool, visual: int
) -> None:
    attention = _attention(visual, seed=visual)
    budget = visual // 2 + 1 if visual > 2 else 1
    policy = HermesPolicy(params, LAYERS, budget, LIMIT)
    rows = [_rows(visual)] * LAYERS
    expected = _reference_scores([a[PREFIX:].tolist() for a in attention], weight, recursive)
    scores = policy.scores(rows, [*attention])
    np.testing.assert_allclose(np.stack(scores), np.array(expected), rtol=0, atol=2e-6)
    plan = policy.plan(rows, [*attention])
    assert plan is not None
    for layer, layer_plan in enumerate(plan):
        count = budget - (layer >= 7)
        best = sorted(range(visual), key=lambda i: -expected[layer][i])[:count]
        assert layer_plan.keep.tolist() == [*range(PREFIX), *(PREFIX + i for i in sorted(best))]


def test_probes_are_those_of_the_bands() -> None:
    policy = HermesPolicy(HERMES, LAYERS, 10, LIMIT)
    kinds = [policy.probe_kind(layer) for layer in range(LAYERS)]
    assert kinds == [None] + [ProbeKind.WORKING] * 6 + [ProbeKind.LONG_TERM] * 3


def test_a_sensory_layer_needs_no_attention_and_the_others_do() -> None:
    policy = HermesPolicy(HERMES, LAYERS, 10, LIMIT)
    rows, attention = [_rows(30)] * LAYERS, _attention(30, seed=1)
    given = policy.scores(rows, [*attention])
    omitted = policy.scores(rows, [None, *attention[1:]])
    np.testing.assert_array_equal(np.stack(given), np.stack(omitted))
    with pytest.raises(ValueError, match="layer 4 needs scores"):
        policy.scores(rows, [*attention[:4], None, *attention[5:]])


def test_attention_to_the_prefix_changes_nothing() -> None:
    policy = HermesPolicy(HERMES, LAYERS, 10, LIMIT)
    rows, attention = [_rows(30)] * LAYERS, _attention(30, seed=2)
    other = [np.r_[np.full(PREFIX, 9, np.float32), a[PREFIX:]] for a in attention]
    np.testing.assert_array_equal(
        np.stack(policy.scores(rows, [*attention])), np.stack(policy.scores(rows, [*other]))
    )


def test_recency_runs_from_one_at_the_newest_row() -> None:
    recent = recency(5, rate=20.0)
    np.testing.assert_allclose(recent, np.exp(-20 * np.array([1, 0.75, 0.5, 0.25, 0])), rtol=1e-6)
    assert recency(1, rate=20.0).tolist() == [1.0]


def test_equal_values_normalise_to_zero() -> None:
    assert normalise(np.full(4, 0.25, np.float32)).tolist() == [0.0] * 4


def test_blend_moves_from_attention_to_recency() -> None:
    attention, recent = _attention(20, seed=3)[0], recency(23, rate=5.0)
    np.testing.assert_array_equal(blend(attention, recent, 0.0), normalise(attention))
    np.testing.assert_array_equal(blend(attention, recent, 1.0), normalise(recent))


def test_one_step_smoothing_reads_raw_scores_and_recursive_reads_smoothed_ones() -> None:
    raw = [np.array([x], np.float32) for x in (0.0, 0.0, 1.0)]
    one_step = smooth(raw, [0.5, 0.5, 0.5], recursive=False)
    recursive = smooth(raw, [0.5, 0.5, 0.5], recursive=True)
    assert [float(s[0]) for s in one_step] == [0.0, 0.5, 1.0]
    assert [float(s[0]) for s in recursive] == [0.25, 0.5, 1.0]


def test_smoothing_bridges_layers_of_different_lengths() -> None:
    own, deeper = np.zeros(4, np.float32), np.array([0, 8], np.float32)
    (smoothed, last) = smooth([own, deeper], [0.5, 0.5], recursive=False)
    # Centres of four cells over two: -0.25, 0.25, 0.75, 1.25; outside, the end values hold.
    assert smoothed.tolist() == [0.0, 1.0, 3.0, 4.0]
    assert last.tolist() == deeper.tolist()


@pytest.mark.parametrize(("given", "wanted"), [(3, 7), (7, 3), (5, 5), (1, 4), (4, 1)])
def test_stretch_is_linear_interpolation_without_aligned_corners(given: int, wanted: int) -> None:
    values = np.random.default_rng(given).random(given).astype(np.float32)
    expected = []
    for i in range(wanted):
        centre = min(max((i + 0.5) * given / wanted - 0.5, 0.0), given - 1.0)
        left = int(centre)
        right = min(left + 1, given - 1)
        share = centre - left
        expected.append((1 - share) * float(values[left]) + share * float(values[right]))
    np.testing.assert_allclose(stretch(values, wanted), expected, rtol=1e-6)


def test_of_equal_scores_the_newer_row_wins() -> None:
    assert top_rows(np.array([1, 2, 1, 2, 1], np.float32), 3).tolist() == [1, 3, 4]
    assert top_rows(np.zeros(5, np.float32), 2).tolist() == [3, 4]
    assert top_rows(np.zeros(5, np.float32), 0).tolist() == []


def test_smoothing_variants_choose_differently() -> None:
    rows, attention = [_rows(120)] * LAYERS, _attention(120, seed=4)
    plans = [
        HermesPolicy(replace(HERMES, smoothing=s), LAYERS, 40, LIMIT).plan(rows, [*attention])
        for s in get_args(Smoothing)
    ]
    assert plans[0] is not None and plans[1] is not None
    differ = [set(a.keep) != set(b.keep) for a, b in zip(*plans, strict=True)]
    # The two deepest layers read the same numbers under both rules.
    assert any(differ[:8]) and not any(differ[8:])
