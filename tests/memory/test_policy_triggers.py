"""When a policy acts, what it says of itself, and the selection of whole frames."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hermes_edge.memory import POLICY_NAMES, make_policy
from hermes_edge.memory.base import PREFIX_FRAME, LayerRows, Policy
from hermes_edge.memory.baselines import spread_frames

LAYERS, PREFIX, BUDGET = 10, 5, 60


def _policy(name: str, max_positions: int = 10_000) -> Policy:
    return make_policy(
        name, layers=LAYERS, budget_rows=BUDGET, max_positions=max_positions, reserve_rows=0
    )


def _rows(visual: int) -> LayerRows:
    count = PREFIX + visual
    frame = np.r_[np.full(PREFIX, PREFIX_FRAME), np.arange(visual)]
    return LayerRows(np.arange(count), frame, np.zeros(count), np.ones(count, np.int64))


@pytest.mark.parametrize(("newest_position", "moves"), [(80, False), (81, True)])
def test_the_released_limit_is_checked_late_and_with_a_margin(
    newest_position: int, moves: bool
) -> None:
    policy = _policy("hermes-released", max_positions=1024 + 80)
    rows = [_rows(newest_position + 1 - PREFIX)] * LAYERS
    assert policy.make_room(rows, 10**6) is None
    # Long-term layers keep the oldest rows, so that no summary stands behind the newest row.
    ramp = np.linspace(0, 1, len(rows[0]), dtype=np.float32)
    attention: list[NDArray[np.float32]] = [ramp] * 7 + [ramp[::-1]] * 3
    plan = policy.plan(rows, [*attention])
    assert plan is not None
    assert [p.position.tolist() == [*range(len(p.keep))] for p in plan[:7]] == [moves] * 7


@pytest.mark.parametrize(
    ("name", "stored", "incoming", "needed"),
    [
        ("hermes", BUDGET, 0, False),
        ("hermes", BUDGET, 1, True),
        ("hermes", BUDGET - 5, 6, True),
        ("hermes-released", BUDGET - PREFIX, 0, False),
        ("hermes-released", BUDGET - PREFIX, 1, True),
        ("window", BUDGET, 50, False),
        ("uniform", BUDGET, 50, False),
        ("random", BUDGET, 50, False),
        ("full", 1, 1, False),
    ],
)
def test_scores_are_asked_for_when_they_will_be_used(
    name: str, stored: int, incoming: int, needed: bool
) -> None:
    rows = [_rows(stored)] * LAYERS
    assert _policy(name).needs_scores(rows, incoming) is needed


def test_hermes_leaves_a_full_budget_alone_and_the_released_code_folds_one_row() -> None:
    rows = [_rows(BUDGET)] * LAYERS
    attention = [np.linspace(0, 1, PREFIX + BUDGET, dtype=np.float32)] * LAYERS
    assert _policy("hermes").plan(rows, [*attention]) is None
    plan = _policy("hermes-released").plan(rows, [*attention])
    assert plan is not None
    assert [len(p.fold) for p in plan] == [0] * 7 + [1] * 3
    assert [p.rows_after for p in plan] == [PREFIX + BUDGET] * LAYERS


@pytest.mark.parametrize("frames_per_chunk", [1, 3, 8])
@pytest.mark.parametrize("capacity", [8, 13, 20])
def test_uniform_stays_uniform_however_long_the_stream(
    capacity: int, frames_per_chunk: int
) -> None:
    size, frames, seen = 12, np.empty(0, np.int64), 0
    while seen < 700:
        new = np.arange(seen, seen + frames_per_chunk)
        frames, seen = np.append(frames, np.repeat(new, size)), seen + frames_per_chunk
        if len(frames) > capacity * size:
            frames = frames[spread_frames(frames, capacity * size)]
        kept, sizes = np.unique(frames, return_counts=True)
        assert (sizes == size).all(), "frames are whole"
        assert (kept[0], kept[-1]) == (0, seen - 1)
        if seen > capacity:
            assert len(kept) == capacity, "the budget is used to the frame"
        if seen > 5 * capacity:
            gaps = np.diff(kept)
            # The newest frame came by itself: only the gap before it may be any size.
            assert gaps[:-1].max() <= 3 * gaps[:-1].min()
            assert gaps[-1] <= 3 * gaps[:-1].max()


def test_uniform_drops_down_to_one_frame_and_then_to_its_newest_rows() -> None:
    frames = np.repeat(np.arange(3), 12)
    assert spread_frames(frames, 30).tolist() == [*range(12), *range(24, 36)]
    assert spread_frames(frames, 13).tolist() == [*range(24, 36)]
    assert spread_frames(frames, 5).tolist() == [*range(31, 36)]


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_a_policy_says_what_it_is(name: str) -> None:
    policy = _policy(name)
    assert policy.name == name
    hierarchical = ("sensory",) + ("working",) * 6 + ("long-term",) * 3
    assert policy.bands == (hierarchical if name.startswith("hermes") else ("all",) * LAYERS)
    assert policy.scoring == ("embedding" if name == "hermes-released" else "forward")
    kinds = {policy.probe_kind(layer) for layer in range(LAYERS)}
    assert (kinds == {None}) != name.startswith("hermes")
