"""Plots: real files, and what cannot be drawn is refused before the work."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import cv2
import pytest

from hermes_edge.errors import DependencyError, SettingsError, StorageError
from hermes_edge.recall import plot
from hermes_edge.recall.plot import apart, check_plot, write_plot
from hermes_edge.recall.records import CellKey, Result


def test_a_picture_of_two_panels(made_up: Result, tmp_path: Path) -> None:
    path = tmp_path / "recall.png"
    write_plot(path, made_up)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape == (500, 1200, 3)
    assert picture.std() > 10


def test_a_drawing_names_every_memory(made_up: Result, tmp_path: Path) -> None:
    path = tmp_path / "recall.svg"
    write_plot(path, made_up)
    drawing = path.read_text(encoding="utf-8")
    assert drawing.startswith("<?xml")
    for policy in made_up.policies:
        assert f"<!-- {policy} -->" in drawing
    assert "<!-- full, where it fits -->" in drawing


@pytest.mark.parametrize("suffix", [".png", ".svg", ".SVG"])
def test_equal_results_give_equal_files(made_up: Result, tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_plot(first, made_up)
    write_plot(second, made_up)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("key", [CellKey("full", 0), CellKey("window", 246)])
def test_one_cell_is_drawn_too(parts: dict[str, Any], tmp_path: Path, key: CellKey) -> None:
    path = tmp_path / "recall.svg"
    write_plot(path, Result(**{**parts, "cells": {key: parts["cells"][key]}}))
    assert f"<!-- {key.policy} -->" in path.read_text(encoding="utf-8")


def test_labels_are_moved_apart_in_their_order() -> None:
    chance = random.Random(0)
    for count in (1, 2, 8, 40):
        wanted = [chance.choice((chance.uniform(0, 100), 95.0)) for _ in range(count)]
        found = apart(wanted, 5, 0, 102)
        gap = min(5, 102 / count)
        placed = sorted(found)
        assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(placed))
        assert 0 <= placed[0] and placed[-1] <= 102
        by_wish = sorted(range(count), key=lambda index: wanted[index])
        assert by_wish == sorted(range(count), key=lambda index: found[index])
    assert apart([10, 50, 90], 5, 0, 102) == [10, 50, 90]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    text = "unknown kind of plot: required .png or .svg, found recall.pdf"
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        check_plot(tmp_path / "recall.pdf")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    text = "plots need matplotlib. pip install 'hermes-edge[plot]'"
    with pytest.raises(DependencyError, match=rf"\A{re.escape(text)}\Z"):
        check_plot(Path("recall.png"))


def test_a_folder_that_is_missing_is_said(made_up: Result, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "recall.png"
    text = f"cannot write {path}: found No such file or directory"
    with pytest.raises(StorageError, match=rf"\A{re.escape(text)}\Z"):
        write_plot(path, made_up)
