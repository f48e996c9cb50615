"""Saves in the background, so that what is lost with a process is never more than an interval."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from hermes_edge.arguments import check_function, seconds, whole
from hermes_edge.errors import HermesEdgeError, QuestionError
from hermes_edge.snapshots.folder import SnapshotFolder
from hermes_edge.snapshots.record import now

_log = logging.getLogger("hermes_edge.snapshots")


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save has cost.

    Attributes:
        path: the file.
        nbytes: its size.
        pause_ms: for which the stream had to wait.
        total_ms: until the file was in place.
    """

    path: Path
    nbytes: int
    pause_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class SaverCounts:
    """For metrics: ``last`` is the newest save that succeeded, times are sums over all of them."""

    saves: int = 0
    failures: int = 0
    last: Saved | None = None
    pause_ms: float = 0.0
    total_ms: float = 0.0


class Saveable(Protocol):
    """A session, as far as saving goes."""

    def save(self, path: str | Path, *, stream: str) -> Saved:
        """Write the memory to a file, whole or not at all."""


class Saver:
    """A thread that saves a session at intervals, and once more at the end.

    A save that fails, for whatever reason, leaves the stream and the older snapshots alone: it is
    counted, each kind of error is logged once until a save succeeds, and it is tried again after
    the next interval. ::

        with runtime.session() as session, Saver(session, "snapshots", every_s=60, keep=3):
            ...
    """

    def __init__(
        self,
        session: Saveable,
        folder: str | Path | SnapshotFolder,
        *,
        every_s: float,
        keep: int = 3,
        stream: str = "stream",
        progress: Callable[[], object] | None = None,
    ) -> None:
        """Start.

        Args:
            session: what is saved; close the saver first.
            folder: made where it is missing, and locked: one saver writes a stream there, of all
                processes. Or the :class:`SnapshotFolder` of a stream, which may be locked already.
            every_s: from the beginning of a save to that of the next.
            keep: good snapshots of this stream that stay; older ones are deleted when a new one
                is in place.
            stream: begins the files' names.
            progress: equal where there is nothing new to save; what it is now is saved already.
                By default everything is saved at every interval.

        Raises:
            StorageError: the folder cannot be made, written or locked.
            SettingsError: an argument of another type or out of range, a name that files cannot
                have, or another process saves the stream there.
        """
        check_function("session.save", getattr(session, "save", None))
        self._session, self._keep = session, whole("keep", keep, least=1)
        self._every_s = seconds("save-every", every_s, most=threading.TIMEOUT_MAX)
        if not isinstance(folder, SnapshotFolder):
            folder = SnapshotFolder(folder, stream)
        self._folder = folder
        self._figures = {"figures": {"stream": folder.stream}}
        self._folder.lock()
        self._progress = progress
        self._saved = progress() if progress is not None else None
        self._writers = 2  # the thread, and who closes
        self._counts = SaverCounts()
        self._lock = threading.Lock()
        self._written: set[Path] = set()
        self._keeps_more = False
        self._failing_since: int | None = None
        self._told: set[type[Exception]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hermes-edge-saver", daemon=True)
        self._thread.start()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def counts(self) -> SaverCounts:
        """What has happened so far."""
        with self._lock:
            return self._counts

    def close(self) -> None:
        """Save once more and stop. Closing twice is fine."""
        if self._stop.is_set():
            return
        self._stop.set()
        failed_with = self._guarded(self._save)
        self._leave()
        # A thread that holds a streamed answer cannot save, and the other thread waits for it.
        if failed_with is not QuestionError:
            self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + self._every_s
        while not self._stop.wait(max(due - time.monotonic(), 0.0)):
            due = time.monotonic() + self._every_s
            self._guarded(self._save)
        self._leave()

    def _leave(self) -> None:
        """The last one to write unlocks."""
        with self._lock:
            self._writers -= 1
            last = self._writers == 0
        if last:
            self._folder.unlock()

    def _guarded(self, work: Callable[[], None]) -> type[Exception] | None:
        """Do it; the class of the error where it failed, of whatever kind: the next is tried."""
        try:
            work()
        except Exception as error:
            self._failed(error)
            return type(error)
        return None

    def _save(self) -> None:
        # Before the memory is looked at: what comes in between is saved once more.
        reached = self._progress() if self._progress is not None else None
        if self._progress is not None and reached == self._saved:
            return
        with self._lock:
            # Once more: somebody may have deleted the folder or the lock's file.
            self._folder.lock()
            path = self._folder.next_path(now())
        try:
            saved = self._session.save(path, stream=self._folder.stream)
            self._saved = reached
            with self._lock:
                self._written.add(saved.path)
        finally:
            # Behind a failure too: the file may be in place though it was not synced.
            self._prune()
        self._succeeded(saved)

    def _prune(self) -> None:
        """Delete older snapshots; that one stays is no failure of a save, and said once."""
        with self._lock:
            known = frozenset(self._written)
        try:
            self._folder.prune(self._keep, known)
        except Exception as error:  # of any kind, as with a save
            new, self._keeps_more = not self._keeps_more, True
            if new:
                text = "%s: older snapshots could not be deleted: %s"
                told = str(error) or type(error).__name__
                _log.warning(text, self._folder.stream, told, extra=self._figures)
        else:
            self._keeps_more = False
        with self._lock:
            self._written = {path for path in self._written if path.exists()}

    def _succeeded(self, saved: Saved) -> None:
        with self._lock:
            saves, failing_since = self._counts.saves + 1, self._failing_since
            self._counts = replace(
                self._counts,
                saves=saves,
                last=saved,
                pause_ms=self._counts.pause_ms + saved.pause_ms,
                total_ms=self._counts.total_ms + saved.total_ms,
            )
            failures, self._failing_since = self._counts.failures, None
            self._told.clear()
        if failing_since is not None:
            _log.warning(
                "%s: saving works again after %d failures",
                self._folder.stream,
                failures - failing_since,
                extra=self._figures,
            )

    def _failed(self, error: Exception) -> None:
        kind, foreseen = type(error), isinstance(error, HermesEdgeError)
        named = f"{kind.__name__}: {error}" if str(error) else kind.__name__
        with self._lock:
            if self._failing_since is None:
                self._failing_since = self._counts.failures
            self._counts = replace(self._counts, failures=self._counts.failures + 1)
            new = kind not in self._told
            self._told.add(kind)
        if new:
            _log.error(
                "%s: the memory could not be saved; the stream goes on, older snapshots stay, and "
                "it is tried every %g s: %s",
                self._folder.stream,
                self._every_s,
                error if foreseen else named,
                # Nobody has thought of it: where it came from must be seen.
                exc_info=None if foreseen else error,
                extra=self._figures,
            )
