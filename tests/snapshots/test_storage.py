"""Files that are written whole: what reaches the disk, in which order, and what it may refuse."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hermes_edge.errors import StorageError
from hermes_edge.storage import remove_leftovers, write_whole


class Disk:
    """The system's own calls, written down; one kind of them fails where that is wanted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.fails: dict[str, int] = {}
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self._synced)
        monkeypatch.setattr(os, "replace", self._replaced)

    def _synced(self, handle: int) -> None:
        self._noted("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        self._fsync(handle)

    def _replaced(self, source: Path, target: Path) -> None:
        self._noted("rename")
        self._replace(source, target)

    def _noted(self, what: str) -> None:
        self.log.append(what)
        if what in self.fails:
            raise OSError(self.fails[what], os.strerror(self.fails[what]))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file that is there already."""
    path = tmp_path / "memory"
    path.write_bytes(b"old")
    return path


def test_the_file_is_synced_then_renamed_then_its_folder_is_synced(disk: Disk, old: Path) -> None:
    write_whole(old, b"new")
    assert disk.log == ["file", "rename", "folder"]
    assert old.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("failing", "found"), [("file", b"old"), ("rename", b"old"), ("folder", b"new")]
)
def test_a_disk_that_fails_is_told_of_and_leaves_one_file_or_the_other(
    disk: Disk, old: Path, raises: Callable[..., Any], failing: str, found: bytes
) -> None:
    disk.fails = {failing: errno.EIO}
    with raises(StorageError, f"cannot write {old}: found Input/output error"):
        write_whole(old, b"new")
    assert old.read_bytes() == found
    assert [*old.parent.iterdir()] == [old]


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_folders_will_do(disk: Disk, old: Path, refusal: int) -> None:
    disk.fails = {"folder": refusal}
    write_whole(old, b"new")
    assert old.read_bytes() == b"new"


def test_what_is_left_is_locked_as_nfs_demands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There an exclusive lock takes a file that is open to be written: flock(2)."""
    flock = fcntl.flock

    def of_nfs(file: Any, operation: int) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    (tmp_path / ".hermes-edge-0.part").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert [*tmp_path.iterdir()] == []
