"""The picture of a memory: counts against a naive recount, a file that stands alone, its error."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hermes_edge.cli.picture import MOST_COLUMNS, layer_lines, span_edges, write_picture
from hermes_edge.errors import StorageError
from hermes_edge.memory.base import PREFIX_FRAME, SUMMARY_FRAME, LayerRows

TOKENS = 4


def _rows(frames: list[int]) -> LayerRows:
    count = len(frames)
    return LayerRows(
        np.arange(count), np.array(frames), np.zeros(count), np.ones(count, dtype=np.int64)
    )


@pytest.mark.parametrize("frames", [1, 7, MOST_COLUMNS, MOST_COLUMNS + 1, 1000])
def test_spans_cover_every_frame_once(frames: int) -> None:
    edges = span_edges(frames)
    assert edges[0] == 0 and edges[-1] == frames
    assert len(edges) - 1 == min(frames, MOST_COLUMNS)
    sizes = np.diff(edges)
    assert sizes.min() >= 1 and sizes.max() - sizes.min() <= 1


def test_cells_are_shares_of_what_was_seen() -> None:
    random = np.random.default_rng(0)
    frames = 200
    held = sorted(random.choice(frames * TOKENS, 150, replace=False) // TOKENS)
    rows = _rows([PREFIX_FRAME] * 3 + [int(frame) for frame in held] + [SUMMARY_FRAME] * 2)
    (line,) = layer_lines([rows], ["long-term"], frames, TOKENS)
    assert (line.rows, line.summaries, line.band) == (150, 2, "long-term")
    edges = span_edges(frames).tolist()
    for cell, first, last in zip(line.cells, edges, edges[1:], strict=False):
        count = sum(first <= frame < last for frame in held)
        assert cell.share == count / ((last - first) * TOKENS)
        most = (last - first) * TOKENS
        assert cell.title == f"frames {first} to {last - 1}: {count} of {most} tokens"


def test_the_page_needs_nothing_else_and_shows_every_layer(tmp_path: Path) -> None:
    lines = layer_lines([_rows([0, 0, 1]), _rows([1, 2])], ["sensory", "working"], 3, TOKENS)
    path = tmp_path / "picture.html"
    thumbnails = [np.full((128, 128, 3), level, np.uint8) for level in (0, 200)]
    write_picture(path, "a <title>", lines, thumbnails)
    page = path.read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert "a &lt;title&gt;" in page and "<title>a <title>" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/jpeg;base64,") == 2
    assert page.count('class="line"') == 2
    assert re.findall(r'<i class="(\w+)"', page) == ["sensory"] * 3 + ["working"] * 3


def test_a_picture_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "picture.html"
    text = (
        f"cannot write the picture {path}: found No such file or directory. "
        "Name another file with --picture"
    )
    with pytest.raises(StorageError, match=rf"\A{re.escape(text)}\Z"):
        write_picture(path, "title", [], [])
