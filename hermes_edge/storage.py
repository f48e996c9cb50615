"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hermes_edge.errors import StorageError

_HIDDEN = ".hermes-edge-{}.part"


@contextmanager
def writing_whole(path: Path, fix: str | None = None) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` if the block succeeds.

    It is written beside, synced and renamed, so that an old file is replaced whole or stays as it
    was, and the folder is synced: what is there after a power cut is the old file or the new one.

    Raises:
        StorageError: it cannot be written.
    """
    beside: Path | None = None
    try:
        # Renaming would replace a device or a link instead of writing through it.
        if path.exists() and not path.is_file():
            raise StorageError(f"cannot write {path}", found="no regular file there")
        target = Path(os.path.realpath(path))
        with _in_work(target.parent) as file:
            beside = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(beside, target)
            beside = None
        _sync_folder(target.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}", found=error.strerror, fix=fix) from None
    finally:
        if beside is not None:
            with suppress(OSError):
                beside.unlink()


def _in_work(folder: Path) -> BinaryIO:
    """A hidden file whose lock tells remove_leftovers() that no killed process has left it."""
    while True:
        # Not derived from the target's name, which may be as long as names can be.
        file = (folder / _HIDDEN.format(secrets.token_hex(8))).open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        # Another process has cleaned the folder before the file was locked.
        file.close()


def open_regular(path: Path) -> BinaryIO:
    """A file to read; a pipe, on which reading would wait for ever, or a device is none.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "no regular file there")
    return file


def write_whole(path: Path, data: bytes, fix: str | None = None) -> None:
    """Write bytes by way of :func:`writing_whole`.

    Raises:
        StorageError: it cannot be written.
    """
    with writing_whole(path, fix) as file:
        file.write(data)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes have left of files that were not whole.

    Raises:
        StorageError: the folder cannot be read or written.
    """
    try:
        for path in folder.glob(_HIDDEN.format("*")):
            # Gone, in work, or another user's.
            nothing = suppress(FileNotFoundError, BlockingIOError, PermissionError)
            if not path.is_file():  # of somebody else's making; a pipe would never open
                continue
            # To be written: what NFS locks must be.
            with nothing, path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
    except OSError as error:
        raise StorageError(f"cannot clean {folder}", found=error.strerror) from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some of FUSE, SMB and 9p cannot, and write folders by rules of their own.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
