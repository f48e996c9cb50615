"""Writing a bundle so that it exists whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from hermes_edge.errors import StorageError
from hermes_edge.manifest import MANIFEST_NAME, FileRecord, sha256_of


@contextmanager
def staged(target: Path, needed_bytes: int, *, overwrite: bool) -> Iterator[Path]:
    """A folder beside ``target`` that takes its name if the block succeeds, and vanishes if not.

    Args:
        target: the bundle to be.
        needed_bytes: about how many bytes will be written; checked against the free space first.
        overwrite: replace an existing bundle. Anything else that exists is never replaced.

    Raises:
        StorageError: ``target`` exists, cannot be written, or its disk is or becomes full.
    """
    _check_target(target, overwrite)
    with storage_errors(target, needed_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(target.parent).free) < needed_bytes:
            raise _too_small(target, needed_bytes, free)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with storage_errors(target, needed_bytes):
            yield staging
            staging.chmod(0o755)
            _sync(staging)
            _replace(staging, target)
    finally:
        # After success the name is gone already.
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def storage_errors(target: Path, needed_bytes: int) -> Iterator[None]:
    """Turn a failed write into a StorageError that says what was needed and what is free."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
    except SafetensorError as error:
        reason = str(error)
    else:
        return
    free = shutil.disk_usage(_existing(target)).free
    raise StorageError(
        f"cannot write {target}: {reason}",
        required=f"about {needed_bytes} bytes",
        found=f"{free} bytes free",
        fix="Nothing was left behind; make room or choose another place, and export again",
    )


def file_records(folder: Path) -> tuple[FileRecord, ...]:
    """Size and sha256 of every file of a bundle but the manifest, by name."""
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST_NAME)
    return tuple(
        FileRecord(path=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in paths
    )


def folder_bytes(folder: Path) -> int:
    """Bytes of all files directly in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def _check_target(target: Path, overwrite: bool) -> None:
    if not (target.exists() or target.is_symlink()):
        return
    if not (target / MANIFEST_NAME).is_file():
        raise StorageError(
            f"{target} exists and is not a bundle",
            required="a new name, or a bundle to replace",
            found="a folder" if target.is_dir() else "a file",
        )
    if not overwrite:
        raise StorageError(
            f"{target} exists",
            required="a new name",
            found="a bundle",
            fix="Add --overwrite to replace it",
        )


def _too_small(target: Path, needed_bytes: int, free_bytes: int) -> StorageError:
    return StorageError(
        f"not enough room for {target}",
        required=f"about {needed_bytes} bytes",
        found=f"{free_bytes} bytes free",
        fix="Make room or choose another place",
    )


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _sync(folder: Path) -> None:
    """Ask for the files to be on the disk before the folder takes its final name."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        target.rename(old / "bundle")
        try:
            staging.rename(target)
        except OSError:
            (old / "bundle").rename(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
