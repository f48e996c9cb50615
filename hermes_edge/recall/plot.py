"""Two panels: accuracy against budget, and against the age of the evidence.

Lines are labelled where they end, in grey text beside a marker of the line's own colour and shape:
neither needs to be told apart by colour alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hermes_edge.errors import DependencyError, SettingsError
from hermes_edge.recall.records import Result
from hermes_edge.recall.statistics import Accuracy, accuracy
from hermes_edge.recall.tables import AGE_BINS, age_chooser, chosen, of_length, paper_budget
from hermes_edge.storage import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_STYLES: dict[str, tuple[str, str]] = {
    "window": ("#E69F00", "o"),
    "last-frames": ("#56B4E9", "s"),
    "uniform": ("#009E73", "D"),
    "random": ("#CC79A7", "^"),
    "hermes-released/embedding": ("#0072B2", "v"),
    "hermes-released/forward": ("#D55E00", "P"),
    "hermes": ("#000000", "X"),
}
_OTHER_STYLE = ("#8B8B00", "*")
_REFERENCE_COLOUR = "#666666"
_TEXT_COLOUR = "#333333"
_SUFFIXES = (".png", ".svg")
# Of an axis's height: below it labels would touch.
_LABEL_GAP = 0.052
# Of an axis's width, for the labels beside the lines.
_LABEL_SHARE = 0.46


@dataclass(frozen=True, slots=True)
class _Line:
    """Percentages by position; NaN where nothing was asked."""

    label: str
    colour: str
    marker: str
    dashed: bool
    values: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def write_plot(path: Path, result: Result) -> None:
    """Draw a result, as PNG or SVG by the file's suffix; equal results give equal files.

    Raises:
        SettingsError: another suffix.
        DependencyError: matplotlib is not installed.
        StorageError: the file cannot be written; an old one stays as it was.
    """
    check_plot(path)
    from matplotlib import rc_context

    # An SVG names its parts at random and tells the time, unless told otherwise.
    data, kind = io.BytesIO(), path.suffix.lower().removeprefix(".")
    with rc_context({"svg.hashsalt": "hermes-edge"}):
        metadata = {"Date": None} if kind == "svg" else None
        _draw(result).savefig(data, format=kind, dpi=100, metadata=metadata)
    write_whole(path, data.getvalue())


def check_plot(path: Path) -> None:
    """Refuse, before hours of work, what could not be drawn afterwards.

    Raises:
        SettingsError: a suffix other than .png and .svg.
        DependencyError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise SettingsError(
            "unknown kind of plot", required=" or ".join(_SUFFIXES), found=path.name
        )
    if find_spec("matplotlib") is None:
        raise DependencyError("plots need matplotlib", fix="pip install 'hermes-edge[plot]'")


def _draw(result: Result) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    by_budget, by_age = _budget_lines(result), _age_lines(result)
    bottom = _bottom([*by_budget, *by_age])
    for axes in (left, right):
        _plain(axes, bottom)
    _against_budget(left, result, by_budget)
    _against_age(right, result, by_age)
    return figure


def _lines(
    result: Result, at: Callable[[str], Sequence[Accuracy]], asked: Sequence[int]
) -> list[_Line]:
    """One line per policy that was asked anything; ``asked`` counts questions by position."""
    lines = []
    for policy in result.policies:
        colour, marker = _STYLES.get(policy, _OTHER_STYLE)
        dashed = result.never_evicts(policy)
        figures = at(policy)
        percent = [100 * np.array([f.share for f in figures])]
        percent += [100 * np.array([f.interval[side] for f in figures]) for side in (0, 1)]
        if not np.isnan(percent[0]).all():
            look = (_REFERENCE_COLOUR, "", True) if dashed else (colour, marker, False)
            partly = any(f.asked < most for f, most in zip(figures, asked, strict=True))
            label = f"{policy}, where it fits" if partly else policy
            lines.append(_Line(label, *look, *percent))
    return lines


def _budget_lines(result: Result) -> list[_Line]:
    choose = of_length(result.base_frames)
    return _lines(
        result,
        lambda policy: [
            accuracy(chosen(result, result.answers(policy, budget), choose))
            for budget in result.budgets
        ],
        [sum(map(choose, result.asked))] * len(result.budgets),
    )


def _age_names(result: Result) -> list[str]:
    return [name for name, _, _ in AGE_BINS if any(map(age_chooser(name), result.asked))]


def _age_lines(result: Result) -> list[_Line]:
    budget = paper_budget(result)
    return _lines(
        result,
        lambda policy: [
            accuracy(chosen(result, result.answers(policy, budget), age_chooser(name)))
            for name in _age_names(result)
        ],
        [sum(map(age_chooser(name), result.asked)) for name in _age_names(result)],
    )


def _against_budget(axes: Axes, result: Result, lines: Sequence[_Line]) -> None:
    shares = [100 * result.share(budget) for budget in result.budgets]
    places = np.log(np.maximum(shares, 1e-3))
    # Labels are on the left, where budgets are small and the lines apart.
    span = max(float(places[-1] - places[0]), 1.0)
    axes.set_xlim(places[0] - span * _LABEL_SHARE / (1 - _LABEL_SHARE), places[-1] + 0.04 * span)
    axes.set_xticks(places, [f"{share:.0f} %" for share in shares] if any(shares) else ["any"])
    axes.set_xlabel(
        f"budget, share of the visual tokens of {_training(result)} frames", loc="right"
    )
    axes.set_ylabel("right answers, %")
    axes.set_title(f"Streams of {result.base_frames} frames", loc="left", fontweight="bold")
    _plot(axes, places, lines, at_right=False)


def _against_age(axes: Axes, result: Result, lines: Sequence[_Line]) -> None:
    names, budget = _age_names(result), paper_budget(result)
    counts = [sum(map(age_chooser(name), result.asked)) for name in names]
    places = np.arange(len(names), dtype=np.float64)
    span = max(len(names) - 1.0, 1.0)
    axes.set_xlim(-0.05 * span, span + span * _LABEL_SHARE / (1 - _LABEL_SHARE))
    axes.set_xticks(places, [f"{n}\n({c})" for n, c in zip(names, counts, strict=True)])
    axes.set_xlabel("frames since the evidence was seen (questions)", loc="left")
    share = f"Budget {result.share(budget):.0%}" if budget else "No budget"
    lengths = ", ".join(map(str, result.frames))
    axes.set_title(f"{share}, streams of {lengths} frames", loc="left", fontweight="bold")
    _plot(axes, places, lines, at_right=True)


def _training(result: Result) -> object:
    return result.settings["training_frames"]


def _plot(
    axes: Axes, places: npt.NDArray[np.float64], lines: Sequence[_Line], at_right: bool
) -> None:
    for line in lines:
        dashes, width = ("--", 1.6) if line.dashed else ("-", 1.8)
        axes.plot(
            places, line.values, dashes, color=line.colour, marker=line.marker, lw=width, ms=6
        )
        if not line.dashed:
            band = axes.fill_between(places, line.low, line.high, color=line.colour, alpha=0.09)
            band.set_linewidth(0)
    _label(axes, places, lines, at_right)


def _label(
    axes: Axes, places: npt.NDArray[np.float64], lines: Sequence[_Line], at_right: bool
) -> None:
    """Names beside the lines' last known points, moved apart and led there by thin lines."""
    if not lines:
        return
    low, high = axes.get_xlim()
    bottom, top = axes.get_ylim()
    ends = []
    for line in lines:
        known = np.flatnonzero(~np.isnan(line.values))
        end = known[-1] if at_right else known[0]
        ends.append((float(places[end]), float(line.values[end])))
    heights = apart([y for _, y in ends], (top - bottom) * _LABEL_GAP, bottom, top)
    side = 1 if at_right else -1
    edge = float(places[-1] if at_right else places[0])
    start = edge + side * 0.055 * (high - low)
    for line, (x, y), height in zip(lines, ends, heights, strict=True):
        axes.plot([x, start], [y, height], ":", color=line.colour, lw=1)
        axes.plot([start], [height], marker=line.marker, color=line.colour, ms=5)
        axes.annotate(
            line.label,
            (start, height),
            xytext=(side * 7, 0),
            textcoords="offset points",
            ha="left" if at_right else "right",
            va="center",
            fontsize=9,
            color=_TEXT_COLOUR,
        )


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, in their order, at least ``gap`` apart and within the bounds.

    Where they do not fit, the gap is narrowed to what does.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    gap = min(gap, (high - low) / len(wanted))
    # Less their gaps, places need only be in order: each run takes the mean of what it wants.
    runs: list[list[float]] = []
    for rank, index in enumerate(order):
        runs.append([wanted[index] - rank * gap])
        while len(runs) > 1 and np.mean(runs[-2]) > np.mean(runs[-1]):
            last = runs.pop()
            runs[-1] += last
    least, most = low + gap / 2, high - gap / 2 - (len(order) - 1) * gap
    placed = [min(max(float(np.mean(run)), least), most) for run in runs for _ in run]
    found = [0.0] * len(order)
    for rank, index in enumerate(order):
        found[index] = placed[rank] + rank * gap
    return found


def _bottom(lines: Sequence[_Line]) -> float:
    """A round percentage below all values."""
    values = [value for line in lines for value in line.values if not np.isnan(value)]
    return max(10.0 * (min(values, default=0.0) // 10) - 10, 0.0)


def _plain(axes: Axes, bottom: float) -> None:
    axes.set_ylim(bottom, 102)
    axes.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
