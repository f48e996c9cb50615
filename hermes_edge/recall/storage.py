"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hermes_edge.errors import StorageError


def write_whole(path: Path, data: bytes, fix: str | None = None) -> None:
    """Write beside and rename, so that an old file is replaced whole or stays as it was.

    Raises:
        StorageError: it cannot be written.
    """
    beside: Path | None = None
    try:
        # Renaming would replace a device or a link instead of writing through it.
        if path.exists() and not path.is_file():
            raise StorageError(f"cannot write {path}", found="no regular file there")
        target = Path(os.path.realpath(path))
        # Not derived from the name, which may be as long as names can be.
        hidden = target.with_name(f".hermes-edge-{os.getpid()}.part")
        with hidden.open("xb") as file:
            beside = hidden
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, target)
        beside = None
    except OSError as error:
        raise StorageError(f"cannot write {path}", found=error.strerror, fix=fix) from None
    finally:
        if beside is not None:
            with suppress(OSError):
                beside.unlink()
