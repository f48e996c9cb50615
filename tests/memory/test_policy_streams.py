"""What must hold for every policy over any stream: plans are carried out on random streams."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hermes_edge.memory import apply_plan, make_policy
from hermes_edge.memory.base import PREFIX_FRAME, SUMMARY_FRAME, LayerPlan, LayerRows, Plan, Policy
from hermes_edge.memory.hermes import HERMES, HermesPolicy
from hermes_edge.memory.positions import PositionLimit

LAYERS, PREFIX, BUDGET, RESERVE = 10, 5, 60, 12
MAX_POSITIONS = 160
LONG_TERM = range(7, 10)

VARIANTS: dict[str, Callable[[], Policy]] = {
    "hermes": lambda: _policy("hermes"),
    "hermes-eager": lambda: _policy("hermes", reindexing="eager"),
    "released": lambda: _policy("hermes-released"),
    "released-eager": lambda: _policy("hermes-released", reindexing="eager"),
    "window": lambda: _policy("window"),
    "uniform": lambda: _policy("uniform"),
    "random": lambda: _policy("random"),
}
MENDED = [name for name in VARIANTS if not name.startswith("released")]


def _policy(name: str, reindexing: str | None = None, budget_rows: int = BUDGET) -> Policy:
    return make_policy(
        name,
        layers=LAYERS,
        budget_rows=budget_rows,
        max_positions=MAX_POSITIONS,
        reserve_rows=RESERVE,
        reindexing="eager" if reindexing == "eager" else None,
    )


def _frozen(*arrays: NDArray[np.generic]) -> None:
    for array in arrays:
        array.flags.writeable = False


def _prefix(count: int = PREFIX) -> LayerRows:
    return LayerRows(
        np.arange(count), np.full(count, PREFIX_FRAME), np.zeros(count), np.ones(count, np.int64)
    )


def _grown(rows: LayerRows, frames: NDArray[np.int64]) -> LayerRows:
    """One more row for each entry of ``frames``, seen at the frame's index in seconds."""
    count = len(frames)
    grown = LayerRows(
        np.append(rows.position, rows.next_position + np.arange(count)),
        np.append(rows.frame, frames),
        np.append(rows.time, frames.astype(np.float64)),
        np.append(rows.weight, np.ones(count, np.int64)),
    )
    _frozen(grown.position, grown.frame, grown.time, grown.weight)
    return grown


@dataclass
class Stream:
    """Drives a policy as a session does; nothing that it hands over may be written to."""

    policy: Policy
    seed: int
    tokens_per_frame: int = 1

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.rows = [_prefix()] * LAYERS
        self.frames = 0

    def make_room(self, incoming: int) -> Plan | None:
        plan = self.policy.make_room(self.rows, incoming)
        self._carry_out(plan)
        return plan

    def grow(self, frames: int) -> None:
        new = np.repeat(np.arange(self.frames, self.frames + frames), self.tokens_per_frame)
        self.frames += frames
        self.rows = [_grown(rows, new) for rows in self.rows]

    def compact(self) -> Plan | None:
        attention = [self.rng.random(len(rows)).astype(np.float32) for rows in self.rows]
        _frozen(*attention)
        plan = self.policy.plan(self.rows, [*attention])
        self._carry_out(plan)
        return plan

    def feed(self, frames: int) -> Plan | None:
        self.make_room(frames * self.tokens_per_frame)
        self.grow(frames)
        return self.compact()

    def _carry_out(self, plan: Plan | None) -> None:
        if plan is not None:
            self.rows = [apply_plan(*pair) for pair in zip(self.rows, plan, strict=True)]


def check_plan(plan: LayerPlan, rows: LayerRows, *, folds: bool) -> None:
    """Every row is kept, folded or dropped, once; order, prefix and positions are sound."""
    kept, folded = set(plan.keep.tolist()), set(plan.fold.tolist())
    everything = set(range(len(rows)))
    assert kept <= everything and folded <= everything - kept
    assert len(kept) == len(plan.keep) == len(plan.position)
    assert len(folded) == len(plan.fold) == len(plan.fold_weight)
    assert (np.diff(plan.keep) > 0).all() and (np.diff(plan.position) > 0).all()
    prefix = int((rows.frame == PREFIX_FRAME).sum())
    assert plan.keep[:prefix].tolist() == list(range(prefix))
    assert plan.position[:prefix].tolist() == rows.position[:prefix].tolist()
    assert (plan.summary_position is None) == (not folded)
    if folds:
        assert folded == everything - kept
    else:
        assert not folded
    if plan.summary_position is not None:
        assert plan.summary_position == plan.position[-1] + 1
        assert float(plan.fold_weight.sum()) == pytest.approx(1.0, abs=1e-6)
    arrays = (plan.keep, plan.position, plan.fold, plan.fold_weight)
    assert [array.dtype.name for array in arrays] == ["int64", "int64", "int64", "float32"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(5))
def test_plans_are_sound_and_the_budget_holds(variant: str, seed: int) -> None:
    policy = VARIANTS[variant]()
    stream, folding = Stream(policy, seed), variant.startswith(("hermes", "released"))
    tokens, compactions = 0, 0
    for _ in range(60):
        frames = int(stream.rng.integers(1, 50))
        stream.make_room(frames)
        stream.grow(frames)
        tokens += frames
        before = stream.rows
        plan = stream.compact()
        if plan is not None:
            compactions += 1
            for layer, (layer_plan, rows) in enumerate(zip(plan, before, strict=True)):
                check_plan(layer_plan, rows, folds=folding and layer in LONG_TERM)
                assert layer_plan.rows_after == len(stream.rows[layer])
        lengths = {len(rows) for rows in stream.rows}
        assert lengths == {PREFIX + min(tokens, BUDGET)}
        for rows in stream.rows:
            assert (np.diff(rows.position) > 0).all()
    assert compactions >= 40


@pytest.mark.parametrize("variant", ["hermes", "hermes-eager", "released", "released-eager"])
def test_long_term_layers_account_for_every_token(variant: str) -> None:
    stream = Stream(VARIANTS[variant](), seed=3)
    tokens = 0
    for _ in range(60):
        frames = int(stream.rng.integers(1, 50))
        stream.feed(frames)
        tokens += frames
        seconds = sum(range(tokens))
        for layer in LONG_TERM:
            rows = stream.rows[layer]
            assert int(rows.weight.sum()) == PREFIX + tokens
            assert float((rows.weight * rows.time).sum()) == pytest.approx(seconds, rel=1e-9)
    for layer, rows in enumerate(stream.rows):
        assert (SUMMARY_FRAME in rows.frame) == (layer in LONG_TERM)
        assert (rows.weight > 1).any() == (layer in LONG_TERM)
    newest = stream.rows[-1]
    assert newest.frame[-1] == SUMMARY_FRAME, "a summary stands last"


@pytest.mark.parametrize("weighted", [False, True])
def test_a_weighted_summary_is_the_mean_of_all_tokens_that_it_stands_for(weighted: bool) -> None:
    params = replace(HERMES, weighted_summary=weighted)
    policy = HermesPolicy(params, LAYERS, BUDGET, PositionLimit(10_000, 0))
    stream = Stream(policy, seed=1)
    values = np.zeros(PREFIX)
    for _ in range(12):
        stream.grow(30)
        values = np.append(values, stream.rng.random(30))
        before, total = stream.rows[9].weight, float((stream.rows[9].weight * values).sum())
        plan = stream.compact()
        if plan is None or plan[9].summary_position is None:
            continue
        summary = float((plan[9].fold_weight * values[plan[9].fold]).sum())
        uneven = (before[plan[9].fold] > 1).any()
        values = np.append(values[plan[9].keep], summary)
        conserved = float((stream.rows[9].weight * values).sum()) == pytest.approx(total, abs=1e-4)
        assert conserved == (weighted or not uneven)
    assert SUMMARY_FRAME in stream.rows[9].frame


@pytest.mark.parametrize("variant", MENDED)
@pytest.mark.parametrize("seed", range(2))
def test_positions_never_cross_the_limit_nor_the_reserve(variant: str, seed: int) -> None:
    stream, reindexed = Stream(VARIANTS[variant](), seed), 0
    for _ in range(500):
        frames = int(stream.rng.integers(1, 60))
        reindexed += stream.make_room(frames) is not None
        stream.grow(frames)
        assert max(rows.next_position for rows in stream.rows) + RESERVE <= MAX_POSITIONS
        stream.compact()
        assert max(rows.next_position for rows in stream.rows) + RESERVE <= MAX_POSITIONS
    assert reindexed > 0 or variant == "hermes-eager"


def test_a_summary_does_not_take_a_position_of_the_reserve() -> None:
    stream = Stream(_policy("hermes"), seed=0)
    frames = MAX_POSITIONS - RESERVE - PREFIX
    assert stream.make_room(frames) is None
    stream.grow(frames)
    # The newest row is kept, so a summary stands one position behind the chunk's last.
    attention = [np.linspace(0, 1, len(rows), dtype=np.float32) for rows in stream.rows]
    plan = stream.policy.plan(stream.rows, [*attention])
    assert plan is not None
    for layer_plan, rows in zip(plan, stream.rows, strict=True):
        assert layer_plan.keep[-1] == len(rows) - 1
        assert apply_plan(rows, layer_plan).next_position == PREFIX + BUDGET


def test_reindexing_keeps_every_row_and_closes_the_gaps() -> None:
    stream = Stream(_policy("hermes"), seed=0)
    while (plan := stream.make_room(40)) is None:
        stream.grow(40)
        stream.compact()
    for layer_plan, rows in zip(plan, stream.rows, strict=True):
        assert layer_plan.keep.tolist() == layer_plan.position.tolist() == [*range(len(rows))]
        assert layer_plan.summary_position is None and len(layer_plan.fold) == 0
        assert rows.next_position == PREFIX + BUDGET


def test_eager_reindexing_leaves_no_gap_after_a_compaction() -> None:
    stream = Stream(VARIANTS["hermes-eager"](), seed=2)
    for _ in range(5):
        stream.feed(40)
    for rows in stream.rows:
        assert rows.position.tolist() == [*range(PREFIX + BUDGET)]


def test_lazy_reindexing_leaves_kept_rows_where_they_are() -> None:
    stream = Stream(_policy("hermes"), seed=2)
    stream.grow(BUDGET + 30)
    before = stream.rows
    plan = stream.compact()
    assert plan is not None
    for layer_plan, rows in zip(plan, before, strict=True):
        np.testing.assert_array_equal(layer_plan.position, rows.position[layer_plan.keep])


def test_the_window_is_exactly_the_newest_rows() -> None:
    stream = Stream(_policy("window"), seed=0)
    for _ in range(20):
        stream.feed(17)
        newest = [*range(max(0, stream.frames - BUDGET), stream.frames)]
        for rows in stream.rows:
            assert rows.frame.tolist() == [PREFIX_FRAME] * PREFIX + newest


def test_uniform_keeps_whole_frames_in_every_layer() -> None:
    stream = Stream(_policy("uniform"), seed=0, tokens_per_frame=7)
    for _ in range(40):
        stream.feed(3)
        for rows in stream.rows:
            _, sizes = np.unique(rows.frame[PREFIX:], return_counts=True)
            assert (sizes == 7).all()
            assert len(rows) <= PREFIX + BUDGET


def test_random_rows_are_of_all_ages_alike() -> None:
    kept: list[int] = []
    for chunk in range(1, 41):
        stream = Stream(_policy("random"), seed=0)
        while stream.frames < 600:
            stream.feed(chunk)
        frames = stream.rows[0].frame[PREFIX:]
        assert len(frames) == BUDGET
        kept += (4 * frames // stream.frames).tolist()
    quarters = np.bincount(kept, minlength=4) / len(kept)
    # 2,400 rows: four standard deviations of a quarter's share.
    np.testing.assert_allclose(quarters, 0.25, atol=0.036)


def test_random_rows_are_equal_for_equal_streams() -> None:
    first, second = (Stream(_policy("random"), seed=0) for _ in range(2))
    for _ in range(12):
        first.feed(17)
        second.feed(17)
        assert first.rows[0].frame.tolist() == second.rows[0].frame.tolist()


def test_full_keeps_everything_up_to_the_budget() -> None:
    stream = Stream(_policy("full"), seed=0)
    for _ in range(6):
        assert stream.feed(10) is None
    assert [len(rows) for rows in stream.rows] == [PREFIX + BUDGET] * LAYERS
