"""Whether a saved memory can be what a stream of this bundle leaves: rows, counts and times.

Asked before a memory is saved and before one is restored, so that neither a moment that cannot be
continued nor a file that was put together otherwise becomes anybody's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from hermes_edge.errors import BudgetError, SettingsError, SnapshotError
from hermes_edge.manifest import Manifest
from hermes_edge.memory.base import PREFIX_FRAME, SUMMARY_FRAME, Float64Array, LayerRows
from hermes_edge.runtime.frames import Waiting
from hermes_edge.runtime.options import StreamPlan, plan_stream
from hermes_edge.snapshots import Geometry, SnapshotRecord
from hermes_edge.spec import PRECISION_DTYPE

STORED_DTYPE: dict[str, Literal["F32", "F16", "BF16"]] = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
}
"""Names of safetensors for the dtypes that slabs have."""
_MOST_TOLD = 5


def geometry_of(manifest: Manifest) -> Geometry:
    """Shapes that a bundle's memories have."""
    decoder = manifest.decoder
    return Geometry(
        layers=decoder.layers,
        kv_heads=decoder.kv_heads,
        head_size=decoder.head_size,
        dtype=STORED_DTYPE[PRECISION_DTYPE[manifest.precision]],
        vocabulary=decoder.vocabulary,
        image_size=manifest.vision.image_size if manifest.vision is not None else 0,
    )


def check_moment(
    record: SnapshotRecord, manifest: Manifest, rows: Sequence[LayerRows], waiting: Waiting
) -> None:
    """Refuse what no stream can have left.

    Raises:
        SnapshotError: the first faults, each with its layer.
    """
    plan = check_record(record, manifest)
    # The released policy re-indexes behind the chunk that has crossed the model's last position.
    most_positions = manifest.decoder.max_positions + plan.spec.chunk_rows
    faults = [*_waiting_faults(record, waiting)]
    for layer, of_layer in enumerate(rows):
        found = _row_faults(record, plan, of_layer, most_positions)
        faults += [f"layer {layer}: {fault}" for fault in found]
    _refuse(faults)


def check_record(record: SnapshotRecord, manifest: Manifest) -> StreamPlan:
    """Refuse a record that no stream of the bundle has, before anything of its size is read.

    Raises:
        SnapshotError: its first faults.
    """
    try:
        plan = plan_stream(record.options, manifest)
    except (SettingsError, BudgetError) as error:
        raise SnapshotError(
            "the memory was made with options that none can have", found=error
        ) from None
    _refuse([*_record_faults(record, manifest, plan)])
    return plan


def _refuse(faults: Sequence[str]) -> None:
    if not faults:
        return
    told = "; ".join(faults[:_MOST_TOLD])
    if len(faults) > _MOST_TOLD:
        told += f"; and {len(faults) - _MOST_TOLD} more"
    raise SnapshotError("the memory contradicts itself", required="rows of one stream", found=told)


def _record_faults(record: SnapshotRecord, manifest: Manifest, plan: StreamPlan) -> Iterator[str]:
    required = geometry_of(manifest)
    if record.geometry != required:
        yield f"a geometry of {record.geometry} instead of {required}"
        return
    if record.bands != plan.policy.bands:
        yield f"bands of another policy than {plan.policy.name}"
    if not record.frames_in_chunk < plan.shape.chunk_frames:
        yield f"{record.frames_in_chunk} frames in an open chunk of {plan.shape.chunk_frames}"
    if record.frames_in_chunk > record.frames:
        yield f"{record.frames_in_chunk} of {record.frames} frames in the open chunk"
    if record.compactions > record.chunks or record.chunks > record.frames:
        yield (
            f"{record.compactions} compactions of {record.chunks} chunks of {record.frames} frames"
        )
    if any(not 0 <= id_ < manifest.decoder.vocabulary for id_ in record.options.prefix_ids):
        yield "a prefix of tokens outside the vocabulary"
    waiting = record.waiting_frames
    room = min(plan.shape.slice_frames, plan.shape.chunk_frames - record.frames_in_chunk)
    # The frame that fills a slice or a chunk has it encoded, or that was given up.
    if waiting > room:
        yield f"{waiting} frames waiting where {room} are encoded at once"
    spec, open_rows = plan.spec, record.frames_in_chunk * plan.shape.tokens_per_frame
    most = spec.prefix_rows + spec.budget_rows + open_rows
    for layer, rows in enumerate(record.rows):
        if not spec.prefix_rows <= rows <= most:
            yield f"layer {layer}: {rows} rows instead of {spec.prefix_rows} to {most}"


def _waiting_faults(record: SnapshotRecord, waiting: Waiting) -> Iterator[str]:
    if not _ordered(waiting.times, record.newest_s):
        yield "waiting frames out of order"


def _row_faults(
    record: SnapshotRecord, plan: StreamPlan, rows: LayerRows, most_positions: int
) -> Iterator[str]:
    spec, tokens = plan.spec, plan.shape.tokens_per_frame
    prefix, visual = rows.frame[: spec.prefix_rows], rows.frame[spec.prefix_rows :]
    if (prefix != PREFIX_FRAME).any() or not ((visual >= 0) | (visual == SUMMARY_FRAME)).all():
        yield f"other rows than {spec.prefix_rows} of a prefix, frames and summaries behind it"
    shown = rows.frame >= 0
    frames = rows.frame[shown]
    if (np.diff(frames) < 0).any() or (frames >= record.frames).any():
        yield f"frames that do not rise, or beyond the {record.frames} encoded"
    within = (rows.position >= 0) & (rows.position < most_positions)
    if (np.diff(rows.position) <= 0).any() or not within.all():
        yield f"positions that do not rise from 0 to at most {most_positions - 1}"
    if not _ordered(rows.time[shown], record.newest_s) or not _within(rows.time, record.newest_s):
        yield f"times that do not rise from 0 to {record.newest_s:g} s"
    weights = rows.weight[spec.prefix_rows :]
    most_weight = record.frames * tokens
    # Compared one by one first: a sum of huge ones would overflow.
    fit = ((weights >= 1) & (weights <= most_weight)).all()
    if (
        not fit
        or weights.sum() > most_weight
        or (rows.weight[rows.frame != SUMMARY_FRAME] != 1).any()
    ):
        yield f"weights that do not add up to at most {most_weight} tokens"


def _within(times: Float64Array, newest_s: float) -> bool:
    return bool(((times >= 0) & (times <= newest_s)).all())


def _ordered(times: Float64Array, newest_s: float) -> bool:
    return _within(times, newest_s) and bool((np.diff(times) >= 0).all())
