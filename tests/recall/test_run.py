"""The recall benchmark through the product's own runtime, on the model in the box."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hermes_edge.errors import BudgetError, BundleError, HermesEdgeError, SettingsError
from hermes_edge.recall.policies import FULL, POLICIES
from hermes_edge.recall.records import CellKey, Result
from hermes_edge.recall.run import Group, RecallSettings, parse_group, run_recall
from hermes_edge.shipped import TINY_BUNDLE
from hermes_edge.synthetic import SPLITS

pytestmark = pytest.mark.slow

SHORT, LONG = Group(12, 2, 8), Group(160, 1, 8)


def _settings(**changes: Any) -> RecallSettings:
    settings = RecallSettings(
        bundle=TINY_BUNDLE, budget_shares=(0.1, 1.0), groups=(SHORT, LONG), threads=1
    )
    return replace(settings, **changes)


def _run(settings: RecallSettings) -> Result:
    return run_recall(settings, lambda done, films, stage: None)


@pytest.fixture(scope="module")
def result() -> Result:
    """Every policy at 10 and 100 %, on two short streams and a long one."""
    return _run(_settings())


def test_every_question_is_counted_in_every_cell(result: Result) -> None:
    budgets = (77, 768)
    keys = {CellKey(policy, b) for policy in POLICIES if policy != FULL for b in budgets}
    assert {*result.cells} == keys | {CellKey(FULL, 0)}
    assert {len(answers) for answers in result.cells.values()} == {len(result.asked)}
    seeds = [asked.stream_seed for asked in result.asked]
    assert {*seeds} == {*SPLITS["held-out"][:3]}
    assert 0 < len(seeds) <= 3 * 8


def test_full_is_left_out_where_the_positions_end(result: Result) -> None:
    answers = result.cells[CellKey(FULL, 0)]
    for asked, answer in zip(result.asked, answers, strict=True):
        assert (answer is None) == (asked.stream_frames == LONG.frames)
    for key, others in result.cells.items():
        assert key.policy == FULL or None not in others


def test_memories_that_need_not_forget_answer_alike(result: Result) -> None:
    """12 frames are 192 tokens: at 768 nothing is ever evicted, whatever the policy is."""
    short = [index for index, asked in enumerate(result.asked) if asked.stream_frames == 12]
    full = result.cells[CellKey(FULL, 0)]
    for policy in POLICIES:
        if policy != FULL:
            answers = result.cells[CellKey(policy, 768)]
            assert [answers[i] for i in short] == [full[i] for i in short], policy


def test_equal_settings_give_equal_results(result: Result) -> None:
    """Whatever else is run beside them."""
    again = _run(_settings(budget_shares=(0.1,)))
    assert again.asked == result.asked
    assert again.cells == {key: result.cells[key] for key in again.cells}
    assert {key.policy for key in again.cells} == {*POLICIES}


def test_another_seed_asks_about_other_streams(result: Result) -> None:
    other = _run(_settings(policies=("window",), budget_shares=(0.1,), seed=100, groups=(SHORT,)))
    assert {asked.stream_seed for asked in other.asked} == {*SPLITS["held-out"][100:102]}


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        (
            {"policies": ("hermes", "newest")},
            SettingsError,
            "unknown policy: required full, window, last-frames, uniform, random, "
            "hermes-released/embedding, hermes-released/forward, hermes, found 'newest'",
        ),
        (
            {"policies": ("hermes", "hermes")},
            SettingsError,
            "policies are listed wrongly: required each once, found ['hermes', 'hermes']",
        ),
        (
            {"budget_shares": (0.02,)},
            BudgetError,
            "a budget of 2.0% is smaller than a frame: required at least 16 of 768 tokens, "
            "found 15. Raise the budget",
        ),
        (
            {"budget_shares": (1.2,)},
            SettingsError,
            "a budget is out of range: required above 0 % and at most 100 %, found 1.2",
        ),
        (
            {"split": "test"},
            SettingsError,
            "unknown split: required train, validation, held-out, found 'test'",
        ),
        (
            {"seed": 99_999_998},
            SettingsError,
            "the split held-out has no such streams: required seed and streams within 100000000, "
            "found 99999998 + 3",
        ),
        (
            {"groups": (Group(0, 1, 1),)},
            SettingsError,
            "streams are out of range: required at least 1 of each, "
            "found {'frames': 0, 'streams': 1, 'questions': 1}",
        ),
    ],
)
def test_bad_settings(changes: dict[str, Any], kind: type[HermesEdgeError], text: str) -> None:
    with pytest.raises(kind, match=rf"\A{re.escape(text)}\Z"):
        _run(_settings(**changes))


def test_a_bundle_of_random_weights_is_refused(random_bundle: Path) -> None:
    text = (
        f"{random_bundle} cannot answer questions about a video: "
        "required a trained model that sees and reads, found hermes-tiny-random with "
        "random weights. Name another bundle, or none for hermes-tiny"
    )
    with pytest.raises(BundleError, match=rf"\A{re.escape(text)}\Z"):
        _run(_settings(bundle=random_bundle))


def test_streams_are_given_as_three_numbers() -> None:
    assert parse_group("48x120x12") == Group(48, 120, 12)
    text = "unknown streams: required FRAMESxSTREAMSxQUESTIONS such as 48x120x12, found '48x120'"
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        parse_group("48x120")
