"""A result for people: accuracy by budget, kind and age, and memories in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from hermes_edge.recall.records import Answers, Asked, Result
from hermes_edge.recall.statistics import accuracy, compare
from hermes_edge.synthetic import KINDS

PAPER_SHARE = 0.32
AGE_BINS: tuple[tuple[str, int, int], ...] = (
    ("0", 0, 0),
    ("1-8", 1, 8),
    ("9-24", 9, 24),
    ("25-48", 25, 48),
    ("49-120", 49, 120),
    ("121+", 121, 10**9),
)
"""Name, least and most frames since the evidence was seen."""

NEVER = "never"
REFERENCE = "hermes"

Chooser = Callable[[Asked], bool]


def render(result: Result) -> Group:
    """All tables, one below the other; ± is half of Wilson's 95 % interval."""
    budget = paper_budget(result)
    parts = [_by_budget(result, frames) for frames in result.frames]
    parts.append(
        _by_group(
            result,
            f"by kind of question, {_budget(result, budget)}",
            [(kind, _of_kind(kind)) for kind in _kinds(result)],
        )
    )
    parts.append(
        _by_group(
            result,
            f"by frames since the evidence was seen, {_budget(result, budget)}",
            [(name, age_chooser(name)) for name in (*(b[0] for b in AGE_BINS), NEVER)],
        )
    )
    if budget:
        parts.append(_winners(result))
        if REFERENCE in result.policies:
            parts.append(_pairs(result))
    return Group(*parts)


def paper_budget(result: Result) -> int:
    """The run's budget that is nearest to the paper's share of the training length's tokens."""
    return min(result.budgets, key=lambda budget: abs(result.share(budget) - PAPER_SHARE))


def age_chooser(name: str) -> Chooser:
    """Questions whose evidence is as old as a bin says; ``never`` has none."""
    if name == NEVER:
        return lambda asked: asked.age_frames is None
    _, least, most = next(entry for entry in AGE_BINS if entry[0] == name)
    return lambda asked: asked.age_frames is not None and least <= asked.age_frames <= most


def chosen(result: Result, answers: Answers, chooser: Chooser) -> list[bool | None]:
    """A cell's answers to the chosen questions."""
    return [answer for asked, answer in zip(result.asked, answers, strict=True) if chooser(asked)]


def of_length(frames: int) -> Chooser:
    """Questions about streams of a length."""
    return lambda asked: asked.stream_frames == frames


def _of_kind(kind: str) -> Chooser:
    return lambda asked: asked.kind == kind


def _kinds(result: Result) -> list[str]:
    """In the order of :data:`KINDS`, others by name after them."""
    order = {kind: index for index, kind in enumerate(KINDS)}
    found = {asked.kind for asked in result.asked}
    return sorted(found, key=lambda kind: (order.get(kind, len(order)), kind))


def _budget(result: Result, budget: int) -> str:
    return f"budget {budget} tokens ({result.share(budget):.0%})" if budget else "no budget"


def _by_budget(result: Result, frames: int) -> Group:
    choose = of_length(frames)
    seen = sum(map(choose, result.asked))
    streams = len({asked.stream_seed for asked in result.asked if choose(asked)})
    title = f"accuracy on streams of {frames} frames ({streams} streams, {seen} questions)"
    columns = [f"{budget} ({result.share(budget):.0%})" for budget in result.budgets]
    table = _table("memory", columns if any(result.budgets) else ["any"])
    for policy in result.policies:
        cells = [result.answers(policy, budget) for budget in result.budgets]
        table.add_row(policy, *(_figure(chosen(result, cell, choose)) for cell in cells))
    return _titled(title, table)


def _by_group(result: Result, title: str, groups: Sequence[tuple[str, Chooser]]) -> Group:
    budget = paper_budget(result)
    counts = [sum(map(chooser, result.asked)) for _, chooser in groups]
    columns = [f"{name} ({count})" for (name, _), count in zip(groups, counts, strict=True)]
    table = _table("memory", columns)
    partly = False
    for policy in result.policies:
        cell = result.answers(policy, budget)
        partly = partly or None in cell
        table.add_row(policy, *(_figure(chosen(result, cell, choose)) for _, choose in groups))
    note = "/n: of only n of the questions; it could not hold the other streams" if partly else ""
    return _titled(f"accuracy {title}", table, note)


def _winners(result: Result) -> Group:
    """Of the memories that evict; ``full`` would win whatever it can hold."""
    budget = paper_budget(result)
    streams = [asked.stream_seed for asked in result.asked]
    table = _table("kind", ["best", "next", "lead", "95 % interval"])
    for kind in _kinds(result):
        choose = _of_kind(kind)
        cells = {
            name: chosen(result, result.answers(name, budget), choose)
            for name in result.policies
            if not result.never_evicts(name)
        }
        figures = {name: accuracy(cell) for name, cell in cells.items()}
        ranked = sorted(
            (name for name, figure in figures.items() if figure.asked),
            key=lambda name: -figures[name].share,
        )[:2]
        row = [f"{name} {figures[name].share:.1%}" for name in ranked]
        if len(ranked) == 2:
            own = [s for s, asked in zip(streams, result.asked, strict=True) if choose(asked)]
            found = compare(cells[ranked[0]], cells[ranked[1]], own)
            if found is not None:
                row += [f"{found.difference:+.1%}", _interval(found.interval)]
        table.add_row(kind, *row)
    title = f"best memory by kind, {_budget(result, budget)}"
    return _titled(title, table, "the best of several: its lead is the luckier for it")


def _pairs(result: Result) -> Group:
    table = _table(
        "memory",
        ["tokens", "both", "it alone", f"{REFERENCE} alone", "difference", "95 % interval", "p"],
    )
    streams = [asked.stream_seed for asked in result.asked]
    for policy in result.policies:
        for budget in result.budgets if policy != REFERENCE else ():
            found = compare(
                result.answers(policy, budget), result.answers(REFERENCE, budget), streams
            )
            if found is not None:
                table.add_row(
                    policy,
                    str(budget),
                    str(found.asked),
                    str(found.first_only),
                    str(found.second_only),
                    f"{found.difference:+.1%}",
                    _interval(found.interval),
                    f"{found.p_value:.2g}",
                )
    return _titled(
        f"each memory against {REFERENCE}: questions right under one alone",
        table,
        "both: questions that both could be asked; p is not corrected for the number of pairs",
    )


def _titled(title: str, table: Table, note: str = "") -> Group:
    # A table's own title would be folded to the table's width.
    notes = [Text(note, style="dim")] if note else []
    return Group(Text(f"\n{title}", style="bold"), table, *notes)


def _table(first: str, columns: Sequence[str]) -> Table:
    table = Table(box=None)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _figure(answers: Sequence[bool | None]) -> str:
    found = accuracy(answers)
    if not found.asked:
        return "-"
    low, high = found.interval
    text = f"{100 * found.share:.1f} ±{50 * (high - low):.0f}"
    return text if found.asked == len(answers) else f"{text}/{found.asked}"


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return "-" if math.isnan(low) else f"{low:+.1%} to {high:+.1%}"
