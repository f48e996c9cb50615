"""What a session remembers, as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_edge.memory.base import PREFIX_FRAME, SUMMARY_FRAME, LayerRows
from hermes_edge.runtime.parts import SessionParts


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer's rows; ages are seconds before the newest frame.

    Attributes:
        layer: index from 0.
        band: ``sensory``, ``working``, ``long-term``, or ``all`` for policies without bands.
        rows: committed rows, prefix included.
        prefix_rows, visual_rows, summary_rows: what they are; they add up to ``rows``.
        tokens_represented: visual tokens that the rows stand for, folded ones included.
        oldest_age_s, median_age_s: of the rows that show a frame.
        bytes: of the committed keys and values.
    """

    layer: int
    band: str
    rows: int
    prefix_rows: int
    visual_rows: int
    summary_rows: int
    tokens_represented: int
    oldest_age_s: float
    median_age_s: float
    bytes: int


@dataclass(frozen=True, slots=True)
class BandReport:
    """The layers of one band together; rows are of its largest layer."""

    band: str
    layers: int
    rows: int
    oldest_age_s: float
    median_age_s: float
    bytes: int


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """The whole memory.

    ``budget_rows`` bounds the visual rows of a layer whenever a chunk has been closed;
    ``open_chunk_rows`` of the chunk that is still open stand on top of it.
    """

    policy: str
    layers: tuple[LayerReport, ...]
    bands: tuple[BandReport, ...]
    budget_rows: int
    open_chunk_rows: int
    capacity_rows: int
    slab_bytes: int
    spare_bytes: int
    frames_seen: int
    newest_s: float

    @property
    def rows(self) -> int:
        """Rows of the largest layer, prefix included."""
        return max(layer.rows for layer in self.layers)


def report_layers(
    rows: Sequence[LayerRows], bands: Sequence[str], newest_s: float, bytes_per_row: int
) -> tuple[LayerReport, ...]:
    """One record per layer; ``bytes_per_row`` counts a key and a value."""
    reports = []
    for index, (layer, band) in enumerate(zip(rows, bands, strict=True)):
        prefix = layer.frame == PREFIX_FRAME
        summary = layer.frame == SUMMARY_FRAME
        ages = newest_s - layer.time[~(prefix | summary)]
        reports.append(
            LayerReport(
                layer=index,
                band=band,
                rows=len(layer),
                prefix_rows=int(prefix.sum()),
                visual_rows=len(ages),
                summary_rows=int(summary.sum()),
                tokens_represented=int(layer.weight[~prefix].sum()),
                oldest_age_s=float(ages.max()) if len(ages) else 0.0,
                median_age_s=_median(ages) if len(ages) else 0.0,
                bytes=len(layer) * bytes_per_row,
            )
        )
    return tuple(reports)


def report_bands(layers: Sequence[LayerReport]) -> tuple[BandReport, ...]:
    """Bands in the order of their first layer."""
    names = list(dict.fromkeys(layer.band for layer in layers))
    members = {name: [layer for layer in layers if layer.band == name] for name in names}
    return tuple(
        BandReport(
            band=name,
            layers=len(group),
            rows=max(layer.rows for layer in group),
            oldest_age_s=max(layer.oldest_age_s for layer in group),
            median_age_s=_median([layer.median_age_s for layer in group]),
            bytes=sum(layer.bytes for layer in group),
        )
        for name, group in members.items()
    )


def report_memory(parts: SessionParts, newest_s: float) -> MemoryReport:
    """The whole memory of a session, held by the caller; ``newest_s`` of what it has taken."""
    newest_s = max(newest_s, parts.encoder.newest_s)
    layers = report_layers(parts.store.rows, parts.policy.bands, newest_s, parts.bytes_per_row)
    waiting = parts.frames.waiting if parts.frames is not None else 0
    return MemoryReport(
        policy=parts.policy.name,
        layers=layers,
        bands=report_bands(layers),
        budget_rows=parts.store.spec.budget_rows,
        open_chunk_rows=parts.encoder.open_chunk_frames * parts.shape.tokens_per_frame,
        capacity_rows=parts.store.spec.capacity_rows,
        slab_bytes=parts.store.slab_bytes,
        spare_bytes=parts.store.spare_bytes,
        frames_seen=parts.encoder.times.frames + waiting,
        newest_s=newest_s,
    )


def _median(values: npt.ArrayLike) -> float:
    """Of finite values, without ``np.median``: numpy 2 imports ``numpy.ma`` at its first call.

    That is in the middle of a stream: 0.5 MB, or 8 MB and 50 ms where nothing is compiled before.
    """
    ordered = np.sort(np.asarray(values))
    # Halved first: the sum of two may not be finite.
    return float(ordered[(len(ordered) - 1) // 2] / 2 + ordered[len(ordered) // 2] / 2)
