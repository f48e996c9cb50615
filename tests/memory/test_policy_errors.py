"""The text of every error that a policy raises."""

import re
from typing import Literal

import numpy as np
import pytest

from hermes_edge.errors import BudgetError, SettingsError
from hermes_edge.memory import POLICY_NAMES, make_policy
from hermes_edge.memory.base import PREFIX_FRAME, LayerRows, Policy


def _policy(
    name: str,
    *,
    layers: int = 10,
    budget_rows: int = 60,
    max_positions: int = 200,
    scoring: Literal["forward", "embedding"] | None = None,
    reindexing: Literal["lazy", "eager"] | None = None,
    smoothing: Literal["recursive", "one-step"] | None = None,
) -> Policy:
    return make_policy(
        name,
        layers=layers,
        budget_rows=budget_rows,
        max_positions=max_positions,
        reserve_rows=20,
        scoring=scoring,
        reindexing=reindexing,
        smoothing=smoothing,
    )


def _rows(visual: int) -> list[LayerRows]:
    count = 5 + visual
    frame = np.r_[np.full(5, PREFIX_FRAME), np.zeros(visual, np.int64)]
    ones = np.ones(count, dtype=np.int64)
    return [LayerRows(np.arange(count), frame, np.zeros(count), ones)] * 10


def _exactly(text: str) -> str:
    return rf"\A{re.escape(text)}\Z"


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    text = (
        "unknown policy: required hermes, hermes-released, window, uniform, random, full, "
        "found 'newest'"
    )
    with pytest.raises(SettingsError, match=_exactly(text)):
        _policy("newest")


@pytest.mark.parametrize("name", ["window", "uniform", "random", "full"])
def test_a_policy_without_scores_refuses_options_of_hermes(name: str) -> None:
    text = _exactly(
        f"the policy {name} has no scoring, re-indexing or smoothing to choose: "
        f"required hermes or hermes-released, found {name}"
    )
    with pytest.raises(SettingsError, match=text):
        _policy(name, scoring="forward")
    with pytest.raises(SettingsError, match=text):
        _policy(name, reindexing="eager")
    with pytest.raises(SettingsError, match=text):
        _policy(name, smoothing="one-step")


@pytest.mark.parametrize("name", POLICY_NAMES)
@pytest.mark.parametrize("budget", [0, -3])
def test_a_budget_that_keeps_nothing_is_refused(name: str, budget: int) -> None:
    text = f"the budget keeps nothing: required at least 1 token, found {budget}. Raise the budget"
    with pytest.raises(BudgetError, match=_exactly(text)):
        _policy(name, budget_rows=budget)


@pytest.mark.parametrize("name", ["hermes", "hermes-released"])
@pytest.mark.parametrize("layers", [1, 2, 9])
def test_too_few_layers_for_three_bands_are_refused(name: str, layers: int) -> None:
    text = (
        f"too few layers for three bands: required at least 10 layers, found {layers}. "
        "Use the policy window or uniform"
    )
    with pytest.raises(BudgetError, match=_exactly(text)):
        _policy(name, layers=layers)
    assert _policy("window", layers=layers).bands == ("all",) * layers


def test_a_full_memory_says_its_budget_and_what_to_do() -> None:
    text = (
        "the memory is full and the policy full never evicts: required at most 60 visual tokens, "
        "found 55 stored, 6 to come. "
        "Raise the budget, or choose a policy that evicts: hermes, window, uniform"
    )
    policy = _policy("full")
    assert policy.make_room(_rows(55), 5) is None
    with pytest.raises(BudgetError, match=_exactly(text)):
        policy.make_room(_rows(55), 6)


@pytest.mark.parametrize("name", ["hermes", "window", "uniform", "random", "full"])
def test_a_memory_that_positions_cannot_hold_is_refused(name: str) -> None:
    text = (
        "the memory does not fit the model's positions: required at most 90, "
        "found 45 rows, 26 to come, 20 in reserve. Lower the budget, the chunk or the reserve"
    )
    policy = _policy(name, budget_rows=100, max_positions=90)
    assert policy.make_room(_rows(40), 25) is None
    with pytest.raises(BudgetError, match=_exactly(text)):
        policy.make_room(_rows(40), 26)
