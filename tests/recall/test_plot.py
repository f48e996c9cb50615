"""Plots: real files, and what cannot be drawn is refused before the work."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest

from hermes_edge.errors import DependencyError, SettingsError, StorageError
from hermes_edge.recall import plot
from hermes_edge.recall.plot import check_plot, write_plot
from hermes_edge.recall.records import Result


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
