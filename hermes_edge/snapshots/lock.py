"""One writer for each stream of a folder: a lock that the kernel takes back from any process."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import NoReturn

from hermes_edge.errors import SettingsError, StorageError


class StreamLock:
    """The right to write a stream's snapshots in a folder: two that wrote would prune each other's.

    It is ``flock`` on an empty hidden file. Whatever ends the process frees it, and a file that was
    left keeps nobody out.
    """

    def __init__(self, folder: Path, stream: str) -> None:
        """Nothing is locked yet."""
        self._folder, self._stream = folder, stream
        self._path = folder / f".hermes-edge-{stream}.lock"
        self._handle: int | None = None

    def take(self) -> None:
        """Lock; where that is done already, see that it still holds.

        On a full disk there may be no room for the file. A start does not fail for that: the next
        call tries again.

        Raises:
            SettingsError: another one writes there.
            StorageError: the folder cannot be written, or not be locked.
        """
        # Who held the file may have deleted it since it was opened: then once more.
        while not self._is_ours():
            self._close()
            try:
                self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    return
                raise StorageError(f"cannot write {self._path}", found=error.strerror) from None
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._close()
                self._refuse(error)

    def give_back(self) -> None:
        """Unlock, and delete the file. Twice is fine."""
        try:
            if self._is_ours():
                # Before it is unlocked: afterwards it may be another's.
                self._path.unlink()
        except OSError:
            pass  # It stays, and keeps nobody out.
        finally:
            self._close()

    def _is_ours(self) -> bool:
        """Whether the folder still has the file that is locked."""
        if self._handle is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(self._path))
        except OSError:  # gone, or a part of its path is; taking it says what is wrong
            return False

    def _refuse(self, error: OSError) -> NoReturn:
        if isinstance(error, BlockingIOError):
            raise SettingsError(
                f"another process saves the stream {self._stream} in {self._folder}",
                required="one at a time",
                found=f"{self._path.name}, which it has locked",
                fix="Choose another folder, or name this stream otherwise: NAME=ADDRESS",
            ) from None
        raise StorageError(
            f"{self._folder} cannot be locked against other processes",
            required="a file system with flock",
            found=error.strerror,
            fix="Choose a folder on another one",
        ) from None

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
