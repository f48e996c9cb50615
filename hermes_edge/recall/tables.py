"""A result for people: accuracy by budget, kind and age, and memories in pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from hermes_edge.recall.records import Answers, Asked, Result
from hermes_edge.recall.statistics import accuracy, compare

PAPER_SHARE = 0.32
AGE_BINS: tuple[tuple[str, int, int], ...] = (
    ("now", 0, 0),
    ("1-8", 1, 8),
    ("9-24", 9, 24),
    ("25-47", 25, 47),
    ("48-119", 48, 119),
    ("120+", 120, 10**9),
)
"""Name, least and most frames since the evidence was seen."""

NEVER = "never"
REFERENCE = "hermes"

Chooser = Callable[[Asked], bool]


def render(result: Result) -> Group:
    """All tables, one below the other; ± is half of Wilson's 95 % interval."""
    budget = paper_budget(result)
    lengths = sorted({asked.stream_frames for asked in result.asked})
    parts = [_by_budget(result, frames) for frames in lengths]
    kinds = list(dict.fromkeys(sorted(asked.kind for asked in result.asked)))
    parts.append(
        _by_group(
            result,
            f"by kind of question, budget {budget} tokens",
            [(kind, _of_kind(kind)) for kind in kinds],
        )
    )
    parts.append(
        _by_group(
            result,
            f"by frames since the evidence was seen, budget {budget} tokens",
            [(name, age_chooser(name)) for name in (*(b[0] for b in AGE_BINS), NEVER)],
        )
    )
    parts.append(_winners(result, kinds))
    if REFERENCE in result.policies:
        parts.append(_pairs(result))
    return Group(*parts)


def paper_budget(result: Result) -> int:
    """The run's budget that is nearest to the paper's share of the training length's tokens."""
    settings = result.settings
    whole = float(str(settings["training_frames"])) * float(str(settings["tokens_per_frame"]))
    return min(result.budgets, key=lambda budget: abs(budget - PAPER_SHARE * whole))


def _of_kind(kind: str) -> Chooser:
    return lambda asked: asked.kind == kind


def age_chooser(name: str) -> Chooser:
    """Questions whose evidence is as old as a bin says; ``never`` has none."""
    if name == NEVER:
        return lambda asked: asked.age_frames is None
    _, least, most = next(entry for entry in AGE_BINS if entry[0] == name)
    return lambda asked: asked.age_frames is not None and least <= asked.age_frames <= most


def chosen(result: Result, answers: Answers, chooser: Chooser) -> list[bool | None]:
    """A cell's answers to the chosen questions."""
    return [answer for asked, answer in zip(result.asked, answers, strict=True) if chooser(asked)]


def _by_budget(result: Result, frames: int) -> Group:
    def at_length(asked: Asked) -> bool:
        return asked.stream_frames == frames

    seen = sum(map(at_length, result.asked))
    streams = len({asked.stream_seed for asked in result.asked if at_length(asked)})
    title = f"accuracy on streams of {frames} frames ({streams} streams, {seen} questions)"
    columns = [f"{budget} tokens" for budget in result.budgets]
    table = _table("memory", columns)
    for policy in result.policies:
        cells = [result.cells[result.key(policy, budget)] for budget in result.budgets]
        table.add_row(policy, *(_figure(chosen(result, cell, at_length)) for cell in cells))
    return _titled(title, table)


def _by_group(result: Result, title: str, groups: Sequence[tuple[str, Chooser]]) -> Group:
    budget = paper_budget(result)
    counts = [sum(map(chooser, result.asked)) for _, chooser in groups]
    columns = [f"{name} ({count})" for (name, _), count in zip(groups, counts, strict=True)]
    table = _table("memory", columns)
    for policy in result.policies:
        cell = result.cells[result.key(policy, budget)]
        table.add_row(policy, *(_figure(chosen(result, cell, choose)) for _, choose in groups))
    return _titled(f"accuracy {title}", table)


def _winners(result: Result, kinds: Sequence[str]) -> Group:
    """Of the memories that evict; ``full`` would win whatever it can hold."""
    budget = paper_budget(result)
    table = _table("kind", ["best", "next"])
    for kind in kinds:
        ranked = sorted(
            (
                (accuracy(chosen(result, cell, _of_kind(kind))), name)
                for name in result.policies
                if (key := result.key(name, budget)).budget_tokens
                for cell in [result.cells[key]]
            ),
            key=lambda entry: -entry[0].share,
        )
        table.add_row(kind, *(f"{name} {figure.share:.1%}" for figure, name in ranked[:2]))
    return _titled(f"best memory by kind, budget {budget} tokens", table)


def _pairs(result: Result) -> Group:
    table = _table(
        "memory",
        ["tokens", "it alone", f"{REFERENCE} alone", "difference", "95 % interval", "p"],
    )
    streams = [asked.stream_seed for asked in result.asked]
    for policy in result.policies:
        for budget in result.budgets if policy != REFERENCE else ():
            found = compare(
                result.cells[result.key(policy, budget)],
                result.cells[result.key(REFERENCE, budget)],
                streams,
            )
            if found is not None:
                low, high = found.interval
                table.add_row(
                    policy,
                    str(budget),
                    str(found.first_only),
                    str(found.second_only),
                    f"{found.difference:+.1%}",
                    f"{low:+.1%} to {high:+.1%}",
                    f"{found.p_value:.2g}",
                )
    return _titled(f"each memory against {REFERENCE}: questions right under one alone", table)


def _titled(title: str, table: Table) -> Group:
    # A table's own title would be folded to the table's width.
    return Group(Text(f"\n{title}", style="bold"), table)


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
    return f"{100 * found.share:.1f} ±{50 * (high - low):.0f}"
