"""A saved memory becomes a session again, and proves that it is the one that was saved."""

from __future__ import annotations

import logging
import math
import os
import reprlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hermes_edge.arguments import check_text, token_ids, whole
from hermes_edge.engines.views import Array
from hermes_edge.errors import HermesEdgeError, SettingsError, SnapshotError
from hermes_edge.manifest import TOLERANCES, Manifest
from hermes_edge.memory import History
from hermes_edge.memory.base import LayerRows
from hermes_edge.runtime.chunks import StageTimes
from hermes_edge.runtime.consistency import check_moment, check_record
from hermes_edge.runtime.frames import Waiting
from hermes_edge.runtime.parts import SessionParts
from hermes_edge.runtime.probes import ProbeSource
from hermes_edge.runtime.saving import probe_logits
from hermes_edge.runtime.scoring import ProbeTokens
from hermes_edge.runtime.session import Session
from hermes_edge.snapshots import SnapshotFile, SnapshotRecord, StreamOptions
from hermes_edge.snapshots.folder import newest_first, only_stream
from hermes_edge.snapshots.layout import WAITING_FRAMES, WAITING_TIMES, cache_names, row_names
from hermes_edge.snapshots.record import shown

if TYPE_CHECKING:
    from hermes_edge.runtime.runtime import Runtime

# A clock that shows less is older than this program, and was not set.
_CLOCKS_ARE_SET = datetime(2026, 1, 1, tzinfo=timezone.utc)

_log = logging.getLogger("hermes_edge.snapshots")


@dataclass(frozen=True, slots=True)
class Restored:
    """A session that goes on, and how it came back.

    Attributes:
        session: as it was.
        path: the snapshot.
        record: what it says of itself.
        probe_deviation: largest difference of the probe's logits from those saved, as a share of
            the largest magnitude.
        refused: newer snapshots of the folder, each with what is wrong with it.
    """

    session: Session
    path: Path
    record: SnapshotRecord
    probe_deviation: float
    refused: tuple[tuple[Path, SnapshotError], ...]

    @property
    def now_s(self) -> float:
        """Time of the stream now: what has passed since the newest frame has passed in it, too."""
        return self.record.newest_s + _newest_age_s(self.record)


def restore_session(
    runtime: Runtime,
    path: Path,
    stream: str | None,
    probes: ProbeSource | None,
    wanted: Mapping[str, object],
) -> Restored:
    """As :meth:`Runtime.restore`, with the particulars.

    Raises:
        SnapshotError, SettingsError, BudgetError: as of :meth:`Runtime.restore`.
    """
    candidates, named = [path], None
    # Unlike Path.is_dir it raises nothing, where a name is too long or a folder closed.
    if of_folder := os.path.isdir(path):
        named = stream or only_stream(path)
        candidates = newest_first(path, named)
    refused: list[tuple[Path, SnapshotError]] = []
    for candidate in candidates:
        try:
            session, record, deviation = _restore_file(runtime, candidate, named, probes, wanted)
        except SnapshotError as error:
            if not of_folder:
                raise
            # Its traceback would hold the slabs until the next ones are allocated beside them.
            refused.append((candidate, error.with_traceback(None)))
            continue
        except HermesEdgeError:
            _tell(refused)
            raise
        _tell(refused)
        return Restored(session, candidate, record, deviation, tuple(refused))
    raise SnapshotError(
        f"{path} holds no snapshot to restore",
        required="a good one" if stream is None else f"a good one of the stream {stream}",
        found="; ".join(str(error) for _, error in refused) or "none",
    )


def _tell(refused: Sequence[tuple[Path, SnapshotError]]) -> None:
    """Say what was passed over. Where none is good, all of it is in the error instead."""
    for _, error in refused:
        _log.warning("a newer snapshot is passed over: %s", error)


def _newest_age_s(record: SnapshotRecord) -> float:
    """Seconds since the newest frame was captured, by the wall clock."""
    away_s = (datetime.now(timezone.utc) - record.saved_at).total_seconds()
    # A board without a battery starts in the past, and may have saved there.
    told = record.saved_at >= _CLOCKS_ARE_SET and away_s > 0
    return record.newest_age_s + (away_s if told else 0.0)


def verify_file(runtime: Runtime, path: Path, stream: str | None) -> float:
    """Restore a snapshot for its probe alone, and give it up; the probe's deviation.

    Where a stream is named, another one's is refused.

    Raises:
        SnapshotError, BudgetError: as of :meth:`Runtime.restore`.
    """
    with SnapshotFile(path) as file:
        own_probes = file.record.options.own_probes
    # A caller's probes are for the chunks to come, and none come.
    probes = _no_probes if own_probes else None
    return _restore_file(runtime, path, stream, probes, {})[2]


def _no_probes(_: History | None) -> ProbeTokens:
    raise RuntimeError("a session that was restored to be verified is fed")


def _restore_file(
    runtime: Runtime,
    path: Path,
    stream: str | None,
    probes: ProbeSource | None,
    wanted: Mapping[str, object],
) -> tuple[Session, SnapshotRecord, float]:
    with SnapshotFile(path) as file:
        record = file.record
        if stream is not None:
            file.check_stream(stream)
        _check_bundle(file, runtime.manifest)
        with _named(file):
            check_record(record, runtime.manifest)
        rows, waiting = _read_small(file)
        with _named(file):
            check_moment(record, runtime.manifest, rows, waiting)
        # All of it before slabs are allocated: a damaged file costs no second memory.
        file.check()
        _check_wanted(runtime, path, record.options, probes, wanted)
        parts = runtime.assemble(record.stream, record.options, probes)
        deviation = _load(file, parts, rows, waiting)
    return Session(parts, record.newest_s), record, deviation


def _check_bundle(file: SnapshotFile, manifest: Manifest) -> None:
    if file.record.bundle != manifest.identity:
        raise SnapshotError(
            f"{file.path} is of another bundle",
            required=f"{manifest.model_id} ({manifest.identity[:16]})",
            found=f"{shown(file.record.model_id)} ({file.record.bundle[:16]})",
            fix="Restore it with the bundle that it was saved with",
        )


@contextmanager
def _named(file: SnapshotFile) -> Iterator[None]:
    """What is wrong with a memory is told with the file's name."""
    try:
        yield
    except SnapshotError as error:
        raise SnapshotError(f"{file.path} cannot be restored", found=error) from None


def _check_wanted(
    runtime: Runtime,
    path: Path,
    options: StreamOptions,
    probes: ProbeSource | None,
    wanted: Mapping[str, object],
) -> None:
    """Refuse settings that contradict the snapshot's; those that are None say nothing."""
    asked = {name: value for name, value in wanted.items() if value is not None}
    decoder, precision = runtime.manifest.decoder, runtime.manifest.precision
    if (nbytes := asked.pop("budget_bytes", None)) is not None:
        given = whole("budget_bytes", nbytes)
        asked["budget_tokens"] = given // decoder.kv_bytes_per_token(precision)
    if (system := asked.pop("system", None)) is not None:
        check_text(system=system)
        asked["prefix_ids"] = runtime.prefix_ids(str(system))
    elif "prefix_ids" in asked:
        asked["prefix_ids"] = token_ids("prefix_ids", asked["prefix_ids"])
    if options.policy == "full":
        # A memory without eviction takes chunks of one frame, whatever is asked.
        asked.pop("chunk_frames", None)
    found = options.model_dump(exclude={"own_probes"})
    if unknown := sorted(asked.keys() - found.keys()):
        raise SettingsError("unknown setting", required=", ".join(found), found=", ".join(unknown))
    if options.own_probes != (probes is not None):
        raise SettingsError(
            f"{path} was saved by a session "
            + ("with probes of its own" if options.own_probes else "without probes of its own"),
            required=f"the argument probes {'as it was' if options.own_probes else 'left out'}",
            found="none given" if probes is None else "probes",
        )
    faults = [name for name, value in asked.items() if found[name] != value]
    if faults:
        raise SettingsError(
            f"{path} was saved with other settings",
            required=_listed(found, faults),
            found=_listed(asked, faults),
            fix="Leave them out, or begin a new memory",
        )


def _listed(settings: Mapping[str, object], names: Sequence[str]) -> str:
    """These settings, a long prefix cut short."""
    pairs = ((name, settings[name]) for name in names)
    return ", ".join(
        f"{name} {reprlib.repr(value) if isinstance(value, tuple) else value}"
        for name, value in pairs
    )


def _read_small(file: SnapshotFile) -> tuple[list[LayerRows], Waiting]:
    layers = range(len(file.record.rows))
    rows = [LayerRows(*(file.array(name) for name in row_names(layer))) for layer in layers]
    return rows, Waiting(file.array(WAITING_FRAMES), file.array(WAITING_TIMES))


def _load(
    file: SnapshotFile, parts: SessionParts, rows: list[LayerRows], waiting: Waiting
) -> float:
    """Fill the memory, run the probe; its deviation from the logits that were saved."""
    record = file.record
    for layer, of_layer in enumerate(rows):
        slabs = zip(cache_names(layer), parts.store.slab(layer), strict=True)
        keys, values = (
            file.raw(name).view(slab.dtype).reshape(len(of_layer), *slab.shape[1:])
            for name, slab in slabs
        )
        parts.store.load(layer, of_layer, keys, values)
    times = StageTimes(frames=record.frames, chunks=record.chunks, compactions=record.compactions)
    parts.encoder.resume(record.frames_in_chunk, times, record.newest_s)
    parts.claim.newest_s = time.monotonic() - _newest_age_s(record)
    if parts.frames is not None:
        parts.frames.load(waiting)
    if (last := record.conversation) is not None:
        parts.history.last = History(last.question, last.answer)
    tolerance = TOLERANCES[parts.manifest.precision]["itself"]
    deviation = _deviation(file.logits(), probe_logits(parts, file.probe_ids))
    # Written so that it refuses what is not a number.
    if not deviation <= tolerance:
        raise SnapshotError(
            f"{file.path} does not compute what it computed when it was saved",
            required=f"logits of the probe within {tolerance:g} of the largest",
            found=f"{deviation:.3g}",
            fix="Restore an older snapshot, or use the device and versions that it was saved with",
        )
    return deviation


def _deviation(saved: Array, found: Array) -> float:
    """Largest difference as a share of the largest magnitude; not a number where one is not."""
    magnitude = np.abs(saved).max()
    if not np.isfinite(magnitude) or magnitude == 0:
        return math.nan
    return float(np.abs(found - saved).max() / magnitude)
