"""From a command line's addresses to streams that can be run."""

from __future__ import annotations

import logging
import math
import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hermes_edge.errors import SettingsError
from hermes_edge.runtime import Runtime, SamplingParams, Session
from hermes_edge.runtime.resize import FrameResizer
from hermes_edge.runtime.restoring import Restored, restore_session
from hermes_edge.service.questions import TimedQuestion
from hermes_edge.service.stream import Listener, Stream, StreamPlan
from hermes_edge.settings import Settings
from hermes_edge.snapshots import Saver, SnapshotFolder
from hermes_edge.snapshots.folder import newest_first
from hermes_edge.snapshots.record import check_stream_name
from hermes_edge.sources import Address, Capture, Source, parse_address
from hermes_edge.sources.redact import redacted_text
from hermes_edge.units import parse_budget

log = logging.getLogger("hermes_edge.service")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be asked of all streams, and how.

    ``to_the_end``: streams end with their sources, also where their last question is answered.
    """

    questions: Sequence[TimedQuestion]
    params: SamplingParams
    to_the_end: bool


def parse_addresses(texts: Sequence[str]) -> list[Address]:
    """Every stream's address; no two have one name.

    Raises:
        SourceError: one is no address.
        SettingsError: a name is used twice.
    """
    addresses = [parse_address(text) for text in texts]
    counts = Counter(address.name for address in addresses)
    if twice := [name for name, count in counts.items() if count > 1]:
        first = next(address for address in addresses if address.name == twice[0])
        raise SettingsError(
            "a stream's name is used twice",
            required="names that differ",
            found=", ".join(twice),
            fix=f"Name them: {_proposed_name(first)}-1={first.shown}",
        )
    return addresses


def check_names(addresses: Sequence[Address]) -> None:
    """Refuse a stream whose snapshots could not have its name.

    Raises:
        SettingsError: the name cannot be a part of a file's.
    """
    for address in addresses:
        named = shlex.quote(f"{_proposed_name(address)}={address.shown}")
        check_stream_name(address.name, fix=f"Name it: {named}")


def _proposed_name(address: Address) -> str:
    """Like the stream's, and one that may stand before an address."""
    name = re.sub(r"[^A-Za-z0-9_]+", "-", address.name)
    return name.lstrip("-_0123456789")[:80].rstrip("-") or "stream"


def check_questions(questions: Sequence[TimedQuestion], addresses: Sequence[Address]) -> None:
    """Refuse a question to a stream that is not there, or to the end of one that has none.

    Raises:
        SettingsError: there is no stream of that name, or it is live and is asked at its end.
    """
    names = [address.name for address in addresses]
    for question in questions:
        if question.stream is not None and question.stream not in names:
            raise SettingsError(
                "a question is for an unknown stream",
                required=" or ".join(names),
                # It was cut at an @, which tells what a password is.
                found=repr(redacted_text(f"{question.stream}@").removesuffix("@")),
            )
        asked = [a for a in addresses if question.stream in (None, a.name)]
        live = [a.name for a in asked if a.live]
        if live and math.isinf(question.at_s):
            end = next((f", or ask {a.name}@end alone" for a in asked if not a.live), "")
            raise SettingsError(
                "a question is for the end of a live stream, which has none",
                required=f"a time such as 0:12 for {' and '.join(live)}",
                found="end",
                fix=f"Give a time, or ask with --stdin{end}",
            )


def check_budgets(texts: Sequence[str], addresses: Sequence[Address]) -> None:
    """Refuse a budget that cannot be read, or is of a stream that is not there.

    Raises:
        SettingsError: one is neither.
    """
    names = [address.name for address in addresses]
    for text in texts:
        name, given, budget = text.rpartition("=")
        if not given or name not in names:
            raise SettingsError(
                "a budget is of no stream",
                required=f"NAME=BUDGET, NAME {' or '.join(names)}",
                found=repr(redacted_text(text)),
            )
        parse_budget(budget)


@contextmanager
def locked_folders(
    addresses: Sequence[Address], path: Path | None
) -> Iterator[dict[str, SnapshotFolder]]:
    """Where each stream's snapshots go, by its name; meanwhile no other process writes them.

    Raises:
        SettingsError: another process does.
        StorageError: the folder cannot be made, written or locked.
    """
    folders = {a.name: SnapshotFolder(path, a.name) for a in addresses if path is not None}
    with ExitStack() as locked:
        for folder in folders.values():
            locked.callback(folder.unlock)
            folder.lock()
        yield folders


def open_streams(
    sources: Sequence[tuple[Address, Source]],
    folders: Mapping[str, SnapshotFolder],
    runtime: Runtime,
    settings: Settings,
    asked: Asked,
    listener: Listener,
) -> list[Stream]:
    """Sessions, captures and savers of all streams; none is fed yet.

    Raises:
        BudgetError: the streams do not fit the device together.
        SnapshotError: there are snapshots of a stream, and none that can be restored.
        StorageError: the snapshots' folder cannot be read.
        SettingsError: as of :meth:`Runtime.session`.
    """
    with ExitStack() as opened:
        memories = []
        for address, _ in sources:
            folder = folders.get(address.name)
            plan, session = _open_memory(address, folder, runtime, settings, asked)
            opened.callback(session.close)
            saver = _saver(session, folder, settings) if folder is not None else None
            if saver is not None:
                opened.callback(saver.close)
            memories.append((plan, session, saver))
        streams = []
        # Last of all: they begin at once, and live frames wait for no other stream's memory.
        for (_, source), (plan, session, saver) in zip(sources, memories, strict=True):
            capture = _capture(source, session.chunk_frames, runtime, settings)
            opened.callback(capture.close)
            streams.append(Stream(plan, capture, session, listener, saver))
        opened.pop_all()
    return streams


def _open_memory(
    address: Address,
    folder: SnapshotFolder | None,
    runtime: Runtime,
    settings: Settings,
    asked: Asked,
) -> tuple[StreamPlan, Session]:
    """A stream's session, new or restored, and how the stream begins with it."""
    options = _options(settings, address.name)
    restored = _restored(folder, runtime, options) if folder is not None else None
    session = restored.session if restored else runtime.session(name=address.name, **options)
    plan = StreamPlan(
        name=address.name,
        questions=[q for q in asked.questions if q.stream in (None, address.name)],
        params=asked.params,
        to_the_end=asked.to_the_end,
        chunk_period_s=session.chunk_frames / settings.fps if address.live else math.inf,
        goes_on=(restored.now_s, time.monotonic()) if restored and address.live else None,
        skips_s=restored.record.newest_s if restored else -math.inf,
        restored=restored is not None,
    )
    return plan, session


def _saver(session: Session, folder: SnapshotFolder, settings: Settings) -> Saver:
    return Saver(
        session,
        folder,
        every_s=settings.save_every,
        keep=settings.keep,
        # What a refused start would leave is in the way of the next one; and with a camera that
        # is away, one memory again and again would push out the older ones.
        progress=lambda: session.progress,
    )


def _capture(source: Source, chunk_frames: int, runtime: Runtime, settings: Settings) -> Capture:
    vision = runtime.manifest.vision
    return Capture(
        source,
        settings.backpressure,
        ring_frames=chunk_frames,
        skip_still=settings.skip_still,
        # What waits has the model's size: sixteen frames of a large camera are 100 MB.
        prepare=FrameResizer(vision.image_size).resize if vision is not None else None,
    )


def _options(settings: Settings, name: str) -> dict[str, Any]:
    """What a stream's session is asked for."""
    own = dict(text.rsplit("=", 1) for text in settings.stream_budget)
    budget = parse_budget(own[name]) if name in own else settings.budget
    return {
        "budget_tokens": budget.tokens if budget is not None else None,
        "budget_bytes": budget.nbytes if budget is not None else None,
        "policy": settings.policy,
        "scoring": settings.scoring,
        "reindexing": settings.reindexing,
        "smoothing": settings.smoothing,
        "chunk_frames": settings.chunk_frames,
        "reserve_tokens": settings.reserve_tokens,
        "workspace_bytes": settings.slice_workspace,
        "system": settings.system,
    }


def _restored(folder: SnapshotFolder, runtime: Runtime, options: dict[str, Any]) -> Restored | None:
    """The newest good memory of a stream; None where none was ever saved."""
    if not newest_first(folder.path, folder.stream):
        return None
    restored = restore_session(runtime, folder.path, folder.stream, None, options)
    log.info(
        "%s: goes on from %s, %d frames until %.1f s",
        folder.stream,
        restored.path.name,
        restored.record.frames + restored.record.waiting_frames,
        restored.record.newest_s,
        extra={"figures": {"stream": folder.stream}},
    )
    return restored
