"""``hermes-edge snapshot``: saved memories listed, shown, verified and thinned out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_edge.cli.output import clock, one_line, print_json, size, stdout, table, warn
from hermes_edge.errors import BudgetError, HermesEdgeError, SettingsError, SnapshotError
from hermes_edge.quoting import hidden
from hermes_edge.snapshots import SnapshotFile, SnapshotFolder, SnapshotRecord
from hermes_edge.snapshots.folder import newest_first, only_stream
from hermes_edge.snapshots.layout import ITEM_BYTES, row_names
from hermes_edge.snapshots.record import shown

if TYPE_CHECKING:
    from hermes_edge.runtime.report import LayerReport

Check = Callable[[Path, str | None], object]

app = typer.Typer(no_args_is_help=True, help="Saved memories: what is there, and is it good?")

Folder = Annotated[Path, typer.Argument(help="Folder of snapshots.")]
Stream = Annotated[str | None, typer.Option(help="Name of the stream, where there are several.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
def list_(folder: Folder, stream: Stream = None, as_json: Json = False) -> None:
    """List the snapshots of FOLDER, the newest first; every byte of them is read."""
    paths = newest_first(folder, stream)
    entries = [entry for path in paths if (entry := _entry(path)) is not None]
    if as_json:
        print_json({"snapshots": entries})
    if stream is not None and not paths:
        raise SnapshotError(f"{folder} holds no snapshot of the stream {hidden(stream)}")
    if as_json:
        return
    table(
        f"snapshots in {folder}",
        ("file", "stream", "saved", "video", "rows", "size", "state"),
        [
            (
                str(entry["file"]),
                str(entry.get("stream", "")),
                str(entry.get("saved_at", "")),
                clock(float(str(entry["newest_s"]))) if "newest_s" in entry else "",
                f"{entry['rows']:,}" if "rows" in entry else "",
                size(int(str(entry["bytes"]))),
                "good" if entry["good"] else "bad",
            )
            for entry in entries
        ],
    )
    for entry in entries:
        if not entry["good"]:
            warn(str(entry["fault"]))


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A snapshot.")], as_json: Json = False) -> None:
    """Show what FILE remembers: its settings, its bands and its conversation."""
    from hermes_edge.runtime.report import report_bands

    with SnapshotFile(file) as opened:
        record, nbytes = opened.record, opened.nbytes
        opened.check()
        # One layer after the other: without a bundle nobody knows how many rows are too many.
        bands = report_bands([_layer(opened, n) for n in range(record.geometry.layers)])
    if as_json:
        document = json.loads(record.model_dump_json())
        document["bands"] = [asdict(band) for band in bands]
        print_json({"file": str(file), "bytes": nbytes, **document})
        return
    _print_facts(file, record, nbytes)
    table(
        "bands",
        ("band", "layers", "rows", "oldest", "median age", "size"),
        [
            (
                band.band,
                str(band.layers),
                f"{band.rows:,}",
                f"{band.oldest_age_s:.1f} s",
                f"{band.median_age_s:.1f} s",
                size(band.bytes),
            )
            for band in bands
        ],
    )


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A snapshot, or a folder of them.")],
    bundle: Annotated[
        Path | None, typer.Option(help="Restore with this bundle too, and compare the probe.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="With a bundle: cpu (as by default), cuda or cuda:N.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="With a bundle: 0 (as by default) is one per core.", min=0)
    ] = None,
) -> None:
    """Read every byte of PATH; with a bundle, restore it and compare its probe. Says which fail."""
    if bundle is None and (device, threads) != (None, None):
        raise SettingsError(
            "nothing is restored on a device",
            required="--bundle beside --device or --threads",
            found="none",
        )
    paths = newest_first(path, None) if (of_folder := os.path.isdir(path)) else [path]
    if not paths:
        raise SnapshotError(f"{path} holds no snapshot")
    check = _read if bundle is None else _restorer(bundle, device or "cpu", threads or 0)
    told, faults = 0, list[HermesEdgeError]()
    for found in paths:
        fault = _fault(check, found, of_folder)
        if of_folder and not os.path.lexists(found):  # pruned meanwhile
            continue
        told += 1
        faults += [fault] if fault is not None else []
        stdout().print(f"{found.name}: {one_line('good' if fault is None else str(fault))}")
    if faults:
        # A lack of room for all of them is what ends it only where no file is bad.
        foremost = next((f for f in faults if isinstance(f, SnapshotError)), faults[0])
        raise type(foremost)(f"{len(faults)} of {told} snapshots cannot be restored")


@app.command()
def prune(
    folder: Folder,
    keep: Annotated[int, typer.Option(min=1, help="Good snapshots that stay.")],
    stream: Stream = None,
) -> None:
    """Delete what is older than the newest good snapshots of a stream; the last good one stays."""
    newest_first(folder, stream)  # where there is no folder, that is said, and none is made
    name = stream or only_stream(folder)
    gone = SnapshotFolder(folder, name).prune(keep) if name is not None else []
    for path in gone:
        stdout().print(f"deleted {path.name}")
    stdout().print(f"{len(gone)} deleted")


def _entry(path: Path) -> dict[str, object] | None:
    """What is known of a file; of a damaged one as much as its header tells; None if it is gone."""
    entry: dict[str, object] = {"file": path.name}
    try:
        # Of a link that leads nowhere, its own.
        entry["bytes"] = (path.stat() if os.path.exists(path) else path.lstat()).st_size
    except OSError:  # pruned meanwhile
        return None
    try:
        with SnapshotFile(path) as file:
            record = file.record
            entry |= {
                "stream": record.stream,
                "saved_at": record.saved_at.isoformat(timespec="milliseconds"),
                "newest_s": record.newest_s,
                "frames": record.frames + record.waiting_frames,
                "rows": max(record.rows),
            }
            file.check_stream(_stream_of(path))
            file.check()
    except SnapshotError as error:
        return {**entry, "good": False, "fault": str(error)}
    return {**entry, "good": True}


def _layer(file: SnapshotFile, layer: int) -> LayerReport:
    from hermes_edge.memory.base import LayerRows
    from hermes_edge.runtime.report import report_layers

    record, geometry = file.record, file.record.geometry
    rows = LayerRows(*(file.array(name) for name in row_names(layer)))
    # Written so that it refuses what is not a number.
    if not ((rows.time >= 0) & (rows.time <= record.newest_s)).all():
        raise SnapshotError(f"{file.path} cannot be restored", found="times that no stream has")
    row_bytes = 2 * geometry.kv_heads * geometry.head_size * ITEM_BYTES[geometry.dtype]
    return report_layers([rows], [record.bands[layer]], record.newest_s, row_bytes)[0]


def _stream_of(path: Path) -> str:
    """The stream that a file of a folder is named after: the time behind it has no hyphen."""
    return path.name.rpartition("-")[0]


def _fault(check: Check, path: Path, of_folder: bool) -> HermesEdgeError | None:
    """What is wrong with a snapshot; one of a folder is of the stream in its name."""
    try:
        check(path, _stream_of(path) if of_folder else None)
    except (SnapshotError, BudgetError) as error:
        return error.with_traceback(None)  # which would hold its slabs
    return None


def _read(path: Path, stream: str | None) -> None:
    with SnapshotFile(path) as file:
        if stream is not None:
            file.check_stream(stream)
        file.check()


def _restorer(bundle: Path, device: str, threads: int) -> Check:
    from hermes_edge.runtime import Runtime
    from hermes_edge.runtime.restoring import verify_file

    return partial(verify_file, Runtime.load(bundle, device=device, threads=threads))


def _print_facts(file: Path, record: SnapshotRecord, nbytes: int) -> None:
    options = record.options
    # Those that are words are the policy's.
    words = options.model_dump(exclude={"policy"}).items()
    own = [f"{name} {value}" for name, value in words if isinstance(value, str)]
    facts = {
        "snapshot": f"{file}, {size(nbytes)}",
        "stream": record.stream,
        "saved": record.saved_at.isoformat(sep=" ", timespec="milliseconds"),
        "bundle": f"{shown(record.model_id)} ({record.bundle[:16]})",
        "policy": shown(", ".join([options.policy, *own])),
        "memory": f"budget {options.budget_tokens:,} tokens, chunk {options.chunk_frames} frames, "
        f"reserve {options.reserve_tokens:,}, prefix {len(options.prefix_ids)}",
        "seen": f"{record.frames + record.waiting_frames:,} frames until "
        f"{clock(record.newest_s)}, {record.waiting_frames} not encoded yet, "
        f"{record.compactions:,} compactions",
    }
    if (last := record.conversation) is not None:
        facts |= {"asked": last.question, "answered": last.answer}
    for name, fact in facts.items():
        stdout().print(f"{name:<9}{one_line(fact)}")
