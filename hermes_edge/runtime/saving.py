"""A session's memory becomes a file while the stream goes on.

What is small is copied, and a probe is run, while the session is held; keys and values are copied
layer by layer afterwards (:mod:`hermes_edge.runtime.frozen`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from hermes_edge.engines.views import Array
from hermes_edge.errors import SnapshotError
from hermes_edge.memory.base import LayerRows
from hermes_edge.runtime.consistency import check_moment, geometry_of
from hermes_edge.runtime.frames import NO_FRAMES, Waiting
from hermes_edge.runtime.frozen import FrozenRows
from hermes_edge.runtime.parts import SessionParts
from hermes_edge.snapshots import Conversation, SnapshotRecord
from hermes_edge.snapshots.file import digest_of
from hermes_edge.snapshots.layout import WAITING_FRAMES, WAITING_TIMES, probe_ids, row_names
from hermes_edge.snapshots.record import check_stream_name, now


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything of a memory but its keys and values, taken while nobody changes it."""

    record: SnapshotRecord
    rows: tuple[LayerRows, ...]
    waiting: Waiting
    logits: Array

    def tensors(self, frozen: FrozenRows) -> Iterator[Array]:
        """All tensors in the order of the file, copied as they are asked for."""
        for rows in self.rows:
            yield from (rows.position, rows.frame, rows.time, rows.weight)
        yield self.waiting.times
        yield self.logits
        for layer in range(len(self.rows)):
            yield from frozen.take(layer)
        yield self.waiting.frames


def take_moment(parts: SessionParts, newest_s: float, stream: str) -> Moment:
    """The moment now; the caller holds the session, and no answer is being made.

    Raises:
        SettingsError: the stream's name cannot be a part of a file's.
        SnapshotError: the memory is in no state that could be restored, or holds numbers that are
            not finite: better no snapshot than one that takes the place of a good one.
    """
    rows = tuple(parts.store.rows)
    waiting = parts.frames.waiting_frames() if parts.frames is not None else NO_FRAMES
    try:
        record = _record(parts, newest_s, check_stream_name(stream), len(waiting.times))
    except ValidationError as error:
        # As of a time in other units than seconds.
        fault = error.errors()[0]
        raise SnapshotError(
            "the memory cannot be saved",
            required="a record that fits its schema",
            found=f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}",
        ) from None
    check_moment(record, parts.manifest, rows, waiting)
    digests = {WAITING_FRAMES: digest_of(waiting.frames), WAITING_TIMES: digest_of(waiting.times)}
    for layer, of_layer in enumerate(rows):
        arrays = (of_layer.position, of_layer.frame, of_layer.time, of_layer.weight)
        digests.update(zip(row_names(layer), map(digest_of, arrays), strict=True))
    logits = probe_logits(parts, probe_ids(record, digests))
    if not np.isfinite(logits).all():
        raise SnapshotError(
            "the memory holds numbers that are not finite and is not saved",
            fix="Look at the frames' encoder; fp16 overflows where fp32 does not",
        )
    return Moment(record, rows, waiting, logits)


def probe_logits(parts: SessionParts, ids: tuple[int, ...]) -> Array:
    """Logits float32 [V] behind the memory and these tokens; the memory stays as it is."""
    logits, _ = parts.runner.run(parts.store, (parts.table.lookup(ids),), want_logits=True)
    assert logits is not None
    return logits


def _record(
    parts: SessionParts, newest_s: float, stream: str, waiting_frames: int
) -> SnapshotRecord:
    manifest, times, last = parts.manifest, parts.encoder.times, parts.history.last
    # A caller may have given a time that has not come.
    age_s = time.monotonic() - parts.claim.newest_s
    return SnapshotRecord(
        saved_at=now(),
        stream=stream,
        model_id=manifest.model_id,
        bundle=manifest.identity,
        geometry=geometry_of(manifest),
        options=parts.options,
        bands=parts.policy.bands,
        rows=tuple(map(len, parts.store.rows)),
        frames=times.frames,
        frames_in_chunk=parts.encoder.open_chunk_frames,
        chunks=times.chunks,
        compactions=times.compactions,
        newest_s=newest_s,
        newest_age_s=max(age_s, 0.0),
        waiting_frames=waiting_frames,
        conversation=None
        if last is None
        else Conversation(question=last.question, answer=last.answer),
    )
