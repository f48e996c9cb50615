"""A folder of snapshots: names that sort by time, the newest good one, and what may be deleted.

    NAME-20261125T130500.123Z.safetensors

A board without a clock of its own starts in the past. So a new name is always later than those that
are there, whatever the clock says; the record keeps the clock's own word.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from hermes_edge.arguments import path_of, whole
from hermes_edge.errors import SettingsError, SnapshotError, StorageError
from hermes_edge.snapshots.file import SnapshotFile
from hermes_edge.snapshots.lock import StreamLock
from hermes_edge.snapshots.record import STREAM_NAME, check_stream_name
from hermes_edge.storage import remove_leftovers

# Behind it there would be no later name.
_LATEST = datetime(9999, 1, 1, tzinfo=timezone.utc)
_NAME = re.compile(rf"({STREAM_NAME})-(\d{{8}}T\d{{6}}\.\d{{3}}Z)\.safetensors", re.A)


class SnapshotFolder:
    """The snapshots of one stream in a folder that may hold those of others too."""

    def __init__(self, path: str | Path, stream: str) -> None:
        """Make the folder where it is missing, and clean up after processes that were killed.

        Raises:
            StorageError: it cannot be made, read or written.
            SettingsError: the stream's name cannot be a part of a file's, or the path is none.
        """
        self.path, self.stream = path_of("folder", path), check_stream_name(stream)
        self._last: datetime | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {path}", found=error.strerror) from None
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise StorageError(
                f"cannot write in {path}",
                required="a folder that can be read and written",
                found="no permission, or a file system that is read-only",
                fix="Choose another folder, or give this one to the user that runs hermes-edge",
            )
        remove_leftovers(self.path)
        self._lock = StreamLock(self.path, stream)

    def lock(self) -> None:
        """Keep others from writing the stream here; again, to see that it holds.

        Raises:
            SettingsError: another one does so.
            StorageError: the folder cannot be locked.
        """
        self._lock.take()

    def unlock(self) -> None:
        """Let others write it. Twice is fine."""
        self._lock.give_back()

    def next_path(self, moment: datetime) -> Path:
        """A name for a snapshot of this moment, later than all others of the stream.

        Raises:
            StorageError: the folder cannot be read, or a file in it, or the clock, has the last of
                all times.
        """
        taken = [self._last] if self._last is not None else []
        taken += [time for _, time in _snapshots(self.path, self.stream)[:1]]
        latest = max([moment, *(time + timedelta(milliseconds=1) for time in taken)])
        if latest >= _LATEST:
            raise StorageError(
                f"no name for a snapshot in {self.path} would be later than all that are there",
                required=f"times before {_LATEST:%Y-%m-%d}",
                # Or, where no file is to blame, the clock.
                found=next((p.name for p in newest_first(self.path, self.stream)), moment),
                fix="Delete that file, or set the clock",
            )
        self._last = latest
        text = latest.strftime("%Y%m%dT%H%M%S.") + f"{latest.microsecond // 1000:03d}Z"
        return self.path / f"{self.stream}-{text}.safetensors"

    def prune(self, keep: int, known_good: Container[Path] = ()) -> list[Path]:
        """Delete what is older than the ``keep`` newest good snapshots; the last good one stays.

        Those of each bundle are counted by themselves: only its own can be restored with it.

        Args:
            keep: at least 1.
            known_good: files of which no more than the header need be read once more.

        Returns:
            The files that are gone.

        Raises:
            StorageError: one cannot be deleted, and all others are; or the folder cannot be read.
            SettingsError: ``keep`` is smaller, or no number.
        """
        keep = whole("keep", keep, least=1)
        good, gone, stays = Counter[str](), list[Path](), list[StorageError]()
        paths = newest_first(self.path, self.stream)
        for path in paths if len(paths) > keep else ():
            # Damaged ones are of no bundle, and go when they are older than enough good ones.
            bundle = _bundle_of(path, self.stream)
            if (good[bundle] if bundle is not None else max(good.values(), default=0)) < keep:
                if bundle is not None:
                    good[bundle] += path in known_good or fault_of(path) is None
                continue
            if path.is_dir():  # of somebody else's making
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                stays.append(StorageError(f"cannot delete {path}", found=error.strerror))
            else:
                gone.append(path)
        if stays:
            raise stays[0]
        return gone


def newest_first(folder: Path, stream: str | None) -> list[Path]:
    """Snapshots of a stream, or of all where None is named, whole or damaged, the newest first.

    Raises:
        StorageError: the folder cannot be read.
    """
    return [path for path, _ in _snapshots(folder, stream)]


def only_stream(folder: Path) -> str | None:
    """The name of the one stream whose snapshots are in a folder; None where there are none.

    Raises:
        StorageError: the folder cannot be read.
        SettingsError: there are several.
    """
    matches = (_NAME.fullmatch(path.name) for path in newest_first(folder, None))
    names = sorted({match[1] for match in matches if match})
    if len(names) > 1:
        raise SettingsError(
            f"{folder} holds several streams", required="the name of one", found=", ".join(names)
        )
    return names[0] if names else None


def fault_of(path: Path) -> SnapshotError | None:
    """What is wrong with a snapshot, every byte of it read; None where nothing is."""
    try:
        with SnapshotFile(path) as file:
            file.check()
    except SnapshotError as error:
        return error
    return None


def _bundle_of(path: Path, stream: str) -> str | None:
    """The bundle that a snapshot's header names; None of another stream's, or of one damaged."""
    try:
        with SnapshotFile(path) as file:
            file.check_stream(stream)
            return file.record.bundle
    except SnapshotError:
        return None


def _snapshots(folder: Path, stream: str | None) -> list[tuple[Path, datetime]]:
    """Files with a snapshot's name and their times, the newest first."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise StorageError(f"cannot read {folder}", found=error.strerror) from None
    found = [(folder / name, time) for name in names for time in _times(name, stream)]
    return sorted(found, key=lambda pair: (pair[1], pair[0].name), reverse=True)


def _times(name: str, stream: str | None) -> Iterator[datetime]:
    """The time in a name, or nothing where it is none of this stream's snapshots."""
    match = _NAME.fullmatch(name)
    if match is None or stream not in (None, match[1]):
        return
    try:
        time = datetime.strptime(match[2], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=timezone.utc)
    except ValueError:
        # Digits that are no date, such as a month 13.
        return
    if time < _LATEST:
        yield time
