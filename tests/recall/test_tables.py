"""Tables against a recount of a made-up result."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from hermes_edge.recall.records import Asked, CellKey, Result
from hermes_edge.recall.statistics import compare, wilson
from hermes_edge.recall.tables import AGE_BINS, NEVER, age_chooser, paper_budget, render
from hermes_edge.synthetic import KINDS


@pytest.fixture(scope="module")
def text(made_up: Result) -> str:
    """All tables as they are printed."""
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(render(made_up))
    return console.export_text()


def _table(text: str, title: str) -> list[list[str]]:
    """Cells of the rows under a title, up to the next title."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith(" "):
            break
        rows.append(re.split(r"\s{2,}", line.strip()))
    return rows


def _share(result: Result, key: CellKey, chosen: list[bool]) -> str:
    answers = [a for a, take in zip(result.cells[key], chosen, strict=True) if take]
    known = [a for a in answers if a is not None]
    return f"{100 * sum(known) / len(known):.1f}" if known else "-"


def test_the_papers_budget_is_found(made_up: Result) -> None:
    assert paper_budget(made_up) == 246


@pytest.mark.parametrize("frames", [48, 480])
def test_accuracy_by_budget_is_a_plain_share(made_up: Result, text: str, frames: int) -> None:
    chosen = [asked.stream_frames == frames for asked in made_up.asked]
    title = (
        f"accuracy on streams of {frames} frames "
        f"({20 if frames == 48 else 10} streams, {sum(chosen)} questions)"
    )
    rows = _table(text, title)
    assert [row[0] for row in rows] == ["full", "window", "hermes"]
    for policy, *figures in rows:
        for figure, budget in zip(figures, made_up.budgets, strict=True):
            key = made_up.key(policy, budget)
            assert figure.split(" ±")[0] == _share(made_up, key, chosen)


def test_accuracy_by_kind_is_a_plain_share(made_up: Result, text: str) -> None:
    rows = _table(text, "accuracy by kind of question, budget 246 tokens")
    kinds = [kind for kind in KINDS if any(asked.kind == kind for asked in made_up.asked)]
    assert len(rows) == 3
    for policy, *figures in rows:
        for figure, kind in zip(figures, kinds, strict=True):
            chosen = [asked.kind == kind for asked in made_up.asked]
            key = made_up.key(policy, 246)
            assert figure.split(" ±")[0] == _share(made_up, key, chosen)


def test_ages_fall_into_one_bin_each() -> None:
    choosers = [age_chooser(name) for name in (*(entry[0] for entry in AGE_BINS), NEVER)]
    for age in (None, *range(600)):
        asked = Asked(0, 700, "now", False, 650, age, "?", "red")
        assert sum(chooser(asked) for chooser in choosers) == 1


def test_winners_are_the_best_that_evict(made_up: Result, text: str) -> None:
    rows = _table(text, "best memory by kind, budget 246 tokens")
    assert {row[0] for row in rows} == {asked.kind for asked in made_up.asked}
    for kind, best, other, lead, _ in rows:
        chosen = [asked.kind == kind for asked in made_up.asked]
        shares = {
            name: _share(made_up, CellKey(name, 246), chosen) for name in ("window", "hermes")
        }
        named = [entry.rsplit(" ", 1) for entry in (best, other)]
        assert {name: share.rstrip("%") for name, share in named} == shares
        # Three shares, each rounded by half a tenth at most.
        gap = float(named[0][1].rstrip("%")) - float(named[1][1].rstrip("%"))
        assert gap >= 0
        assert float(lead.rstrip("%")) == pytest.approx(gap, abs=0.16)


def test_pairs_count_discordant_questions(made_up: Result, text: str) -> None:
    rows = _table(text, "each memory against hermes")
    assert [(row[0], int(row[1])) for row in rows] == [
        (policy, budget) for policy in ("full", "window") for budget in made_up.budgets
    ]
    streams = [asked.stream_seed for asked in made_up.asked]
    for policy, budget, both, first, second, difference, interval, p in rows:
        ours = made_up.cells[made_up.key(policy, int(budget))]
        theirs = made_up.cells[CellKey("hermes", int(budget))]
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None]
        assert int(first) == sum(bool(a and not b) for a, b in pairs)
        assert int(second) == sum(bool(b and not a) for a, b in pairs)
        assert int(both) == len(pairs)
        found = compare(ours, theirs, streams)
        assert found is not None
        assert difference == f"{100 * (int(first) - int(second)) / len(pairs):+.1f}%"
        low, high = found.interval
        assert (interval, p) == (f"{low:+.1%} to {high:+.1%}", f"{found.p_value:.2g}")


def test_accuracy_by_age_is_a_plain_share_with_its_interval(made_up: Result, text: str) -> None:
    rows = _table(text, "accuracy by frames since the evidence was seen, budget 246 tokens (32%)")
    bins: dict[str, Sequence[int | None]] = {
        "0": range(1),
        "1-8": range(1, 9),
        "9-24": range(9, 25),
        "25-48": range(25, 49),
    }
    bins |= {"49-120": range(49, 121), "121+": range(121, 480), "never": (None,)}
    assert [row[0] for row in rows] == ["full", "window", "hermes"]
    for policy, *figures in rows:
        answers = made_up.cells[made_up.key(policy, 246)]
        for figure, ages in zip(figures, bins.values(), strict=True):
            pairs = zip(made_up.asked, answers, strict=True)
            taken = [answer for asked, answer in pairs if asked.age_frames in ages]
            known = [answer for answer in taken if answer is not None]
            if not known:
                assert figure == "-"
                continue
            low, high = wilson(sum(known), len(known))
            wanted = f"{100 * sum(known) / len(known):.1f} ±{50 * (high - low):.0f}"
            part = "" if len(known) == len(taken) else f"/{len(known)}"
            assert figure == wanted + part


def test_full_alone_has_tables_too(made_up: Result, parts: dict[str, Any]) -> None:
    key = CellKey("full", 0)
    alone = Result(**{**parts, "cells": {key: made_up.cells[key]}})
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(render(alone))
    rows = _table(console.export_text(), "accuracy on streams of 48 frames")
    chosen = [asked.stream_frames == 48 for asked in made_up.asked]
    ((policy, figure),) = rows
    assert (policy, figure.split(" ±")[0]) == ("full", _share(made_up, key, chosen))


def test_cells_that_were_not_run_are_left_blank(parts: dict[str, Any]) -> None:
    cells = {key: cell for key, cell in parts["cells"].items() if key != CellKey("window", 38)}
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(render(Result(**{**parts, "cells": cells})))
    rows = _table(console.export_text(), "accuracy on streams of 48 frames")
    assert next(row for row in rows if row[0] == "window")[1] == "-"
