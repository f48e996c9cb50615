"""Writing a bundle so that it exists whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from hermes_edge.errors import StorageError
from hermes_edge.manifest import MANIFEST_NAME, FileRecord, sha256_of


@dataclass(frozen=True, slots=True)
class Staging:
    """The folder that a bundle is written to before it takes its name."""

    folder: Path
    target: Path
    needed_bytes: int

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """The folder; a failed write inside becomes a StorageError.

        Raises:
            StorageError: it names the bundle, the bytes needed and the bytes free.
        """
        try:
            yield self.folder
            return
        except OSError as error:
            reason = error.strerror or str(error)
        except SafetensorError as error:
            reason = str(error)
        free = shutil.disk_usage(_existing(self.target)).free
        raise StorageError(
            f"cannot write {self.target}: {reason}",
            required=f"about {self.needed_bytes} bytes",
            found=f"{free} bytes free",
            fix="Nothing was left behind; make room or choose another place, and export again",
        )


@contextmanager
def staged(target: Path, needed_bytes: int, *, overwrite: bool) -> Iterator[Staging]:
    """A folder beside ``target`` that takes its name if the block succeeds, and vanishes if not.

    Args:
        target: the bundle to be.
        needed_bytes: about how many bytes will be written; checked against the free space first.
        overwrite: replace an existing bundle. Anything else that exists is never replaced.

    Raises:
        StorageError: ``target`` exists, cannot be written, or its disk is or becomes full.
    """
    _check_target(target, overwrite)
    if (free := shutil.disk_usage(_existing(target)).free) < needed_bytes:
        raise StorageError(
            f"not enough room for {target}",
            required=f"about {needed_bytes} bytes",
            found=f"{free} bytes free",
            fix="Make room or choose another place",
        )
    with Staging(target, target, needed_bytes).writing():
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    staging = Staging(folder, target, needed_bytes)
    try:
        yield staging
        with staging.writing():
            _sync(folder)
            _replace(folder, target)
    finally:
        # After success the name is gone already.
        shutil.rmtree(folder, ignore_errors=True)


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


def _existing(path: Path) -> Path:
    """The nearest folder above ``path`` that is there."""
    return path if path.exists() else _existing(path.parent)


def _sync(folder: Path) -> None:
    """Ask for the files to be on the disk before the folder takes its final name."""
    for path in (*folder.iterdir(), folder):
        # Temporary folders and safetensors files are private when they are made.
        path.chmod(0o755 if path.is_dir() else 0o644)
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
