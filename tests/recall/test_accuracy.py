"""How much hermes-tiny still answers on a small fixed set of held-out streams.

The floors lie below what these questions gave when the weights were shipped, by
some three standard errors: they catch a broken export, memory or prompt, not a bad day.
"""

from __future__ import annotations

import pytest

from hermes_edge.recall.policies import FULL
from hermes_edge.recall.records import CellKey, Result
from hermes_edge.recall.run import Group, RecallSettings, run_recall
from hermes_edge.recall.statistics import accuracy
from hermes_edge.shipped import TINY_BUNDLE

pytestmark = pytest.mark.slow

FLOORS = {"now": 0.88, "recall": 0.94, "existence": 0.9, "count": 0.7, "order": 0.86}
# Of all questions, at the paper's 32 % of the visual tokens.
EVICTING_FLOORS = {"window": 0.52, "uniform": 0.81, "hermes": 0.8}


@pytest.fixture(scope="module")
def result() -> Result:
    """Streams as long as in training, from the far end of the split."""
    settings = RecallSettings(
        bundle=TINY_BUNDLE,
        seed=50_000_000,
        policies=(FULL, *EVICTING_FLOORS),
        budget_shares=(0.32,),
        groups=(Group(48, 12, 24),),
        threads=1,
    )
    return run_recall(settings, lambda done, films, stage: None)


@pytest.mark.parametrize("group", FLOORS)
def test_a_full_cache_answers(result: Result, group: str) -> None:
    answers = [
        answer
        for asked, answer in zip(result.asked, result.cells[CellKey(FULL, 0)], strict=True)
        if asked.kind.partition("-")[0] == group and not asked.choice
    ]
    found = accuracy(answers)
    assert found.asked >= 15
    assert found.share >= FLOORS[group]


@pytest.mark.parametrize("policy", EVICTING_FLOORS)
def test_a_memory_of_a_third_still_answers(result: Result, policy: str) -> None:
    assert accuracy(result.cells[CellKey(policy, 246)]).share >= EVICTING_FLOORS[policy]
