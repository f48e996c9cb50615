"""Two panels: accuracy against budget, and against the age of the evidence."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hermes_edge.errors import DependencyError, SettingsError, StorageError
from hermes_edge.recall.policies import FULL
from hermes_edge.recall.records import Result
from hermes_edge.recall.statistics import accuracy
from hermes_edge.recall.tables import AGE_BINS, age_chooser, chosen, paper_budget

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#000000")
_SUFFIXES = (".png", ".svg")


def write_plot(path: Path, result: Result) -> None:
    """Draw a result, as PNG or SVG by the file's suffix.

    Raises:
        SettingsError: another suffix.
        DependencyError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    check_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _against_budget(left, result)
    _against_age(right, result)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    try:
        figure.savefig(path, dpi=100)
    except OSError as error:
        raise StorageError(f"cannot write {path}", found=error.strerror) from None


def check_plot(path: Path) -> None:
    """Refuse, before hours of work, what could not be drawn afterwards.

    Raises:
        SettingsError: a suffix other than .png and .svg.
        DependencyError: matplotlib is not installed.
    """
    if path.suffix not in _SUFFIXES:
        raise SettingsError(
            "unknown kind of plot", required=" or ".join(_SUFFIXES), found=path.name
        )
    if find_spec("matplotlib") is None:
        raise DependencyError("plots need matplotlib", fix="pip install 'hermes-edge[plot]'")


def _against_budget(axes: Any, result: Result) -> None:
    frames = min(asked.stream_frames for asked in result.asked)
    whole = frames * int(str(result.settings["tokens_per_frame"]))
    for policy, style in _styles(result):
        figures = [
            accuracy(
                chosen(
                    result,
                    result.cells[result.key(policy, budget)],
                    lambda asked: asked.stream_frames == frames,
                )
            )
            for budget in result.budgets
        ]
        shares = [100 * budget / whole for budget in result.budgets]
        axes.plot(shares, [100 * f.share for f in figures], label=policy, **style)
        if policy != FULL:
            low, high = ([100 * f.interval[side] for f in figures] for side in (0, 1))
            axes.fill_between(shares, low, high, color=style["color"], alpha=0.08, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:.0f} %" for share in shares], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(f"budget, share of the visual tokens of {frames} frames")
    axes.set_ylabel("right answers, %")
    axes.set_title(f"streams of {frames} frames, all questions", loc="left")
    _plain(axes)


def _against_age(axes: Any, result: Result) -> None:
    budget = paper_budget(result)
    names = [name for name, _, _ in AGE_BINS if any(map(age_chooser(name), result.asked))]
    for policy, style in _styles(result):
        cell = result.cells[result.key(policy, budget)]
        figures = [accuracy(chosen(result, cell, age_chooser(name))) for name in names]
        axes.plot(names, [100 * figure.share for figure in figures], label=policy, **style)
    axes.set_xlabel("frames since the evidence was seen")
    axes.set_title(f"budget {budget} tokens, streams of all lengths", loc="left")
    _plain(axes)


def _styles(result: Result) -> list[tuple[str, dict[str, Any]]]:
    others = [policy for policy in result.policies if policy != FULL]
    styles: list[tuple[str, dict[str, Any]]] = [
        (policy, {"color": _COLOURS[index % len(_COLOURS)], "marker": "osD^vPX"[index % 7]})
        for index, policy in enumerate(others)
    ]
    if FULL in result.policies:
        styles.append((FULL, {"color": "#777777", "linestyle": "--"}))
    return styles


def _plain(axes: Any) -> None:
    axes.set_ylim(0, 102)
    axes.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
