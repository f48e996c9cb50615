"""A picture of what a memory remembers: layers by the time at which their rows were seen, as HTML.

One column is a span of the stream, one row a layer; a cell is the darker, the larger the share of
the span's visual tokens that the layer still holds. Summaries stand for tokens of no one time and
are counted beside the layer.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, select_autoescape

from hermes_edge.errors import StorageError
from hermes_edge.memory.base import SUMMARY_FRAME, LayerRows

MOST_COLUMNS = 80


@dataclass(frozen=True, slots=True)
class Cell:
    """One span of frames in one layer."""

    share: float
    title: str


@dataclass(frozen=True, slots=True)
class LayerLine:
    """One layer: its cells from the oldest span to the newest."""

    layer: int
    band: str
    cells: tuple[Cell, ...]
    rows: int
    summaries: int


def layer_lines(
    rows: Sequence[LayerRows], bands: Sequence[str], frames: int, tokens_per_frame: int
) -> list[LayerLine]:
    """What is drawn: for each layer the share of every span's tokens that it holds.

    Args:
        rows: as :meth:`Session.rows` gives them.
        bands: name of each layer's band.
        frames: seen so far.
        tokens_per_frame: visual tokens of one frame.
    """
    edges = span_edges(frames)
    seen = np.diff(edges) * tokens_per_frame
    lines = []
    for layer, (held, band) in enumerate(zip(rows, bands, strict=True)):
        counts, _ = np.histogram(held.frame[held.frame >= 0], edges)
        cells = tuple(
            Cell(count / most, f"frames {first} to {last - 1}: {count} of {most} tokens")
            for count, most, first, last in zip(
                counts.tolist(), seen.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True
            )
        )
        summaries = int((held.frame == SUMMARY_FRAME).sum())
        lines.append(LayerLine(layer, band, cells, int(counts.sum()), summaries))
    return lines


def span_edges(frames: int) -> npt.NDArray[np.int64]:
    """Edges of at most ``MOST_COLUMNS`` spans of ``frames`` frames."""
    columns = min(frames, MOST_COLUMNS)
    return np.arange(columns + 1, dtype=np.int64) * frames // columns


def write_picture(
    path: Path,
    title: str,
    lines: Sequence[LayerLine],
    thumbnails: Sequence[npt.NDArray[np.uint8]],
) -> None:
    """Write the picture as one HTML file that needs nothing else.

    Args:
        path: replaced where it exists.
        title: above the picture.
        lines: from :func:`layer_lines`.
        thumbnails: uint8 RGB pictures of the stream, evenly spread, oldest first.

    Raises:
        StorageError: the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("hermes_edge", "assets"), autoescape=select_autoescape(["jinja"])
    )
    page = environment.get_template("picture.html.jinja").render(
        title=title, lines=lines, thumbnails=[_data_url(picture) for picture in thumbnails]
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write the picture {path}",
            found=error.strerror,
            fix="Name another file with --picture",
        ) from None


def _data_url(picture: npt.NDArray[np.uint8]) -> str:
    small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
