"""Training that can be interrupted at any moment: every file is replaced as a whole."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from hermes_edge.errors import SettingsError, StorageError

STATE_NAME = "training.pt"
LOG_NAME = "log.jsonl"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's state; whatever happens, the old or the new one is there whole.

    Raises:
        StorageError: it cannot be written; the old one stays.
    """
    target = folder / STATE_NAME
    beside = target.with_suffix(".part")
    # By way of memory: torch turns an interrupt or a full disk in its writer into RuntimeError.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        with writing(target):
            with beside.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
    finally:
        # After success the name is gone already.
        beside.unlink(missing_ok=True)


def load_state(folder: Path, recipe: str, seed: int) -> dict[str, Any] | None:
    """The saved state, or None where training has not begun.

    Raises:
        StorageError: the file is damaged or cannot be read.
        SettingsError: it belongs to another recipe or seed.
    """
    path = folder / STATE_NAME
    with restoring(path):
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
        except FileNotFoundError:
            return None
        found = (state["recipe"], state["seed"])
    if found != (recipe, seed):
        raise SettingsError(
            f"{folder} holds another training",
            required=f"recipe {recipe}, seed {seed}",
            found=f"recipe {found[0]}, seed {found[1]}",
            fix="Choose another folder",
        )
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """What goes wrong with a saved state becomes a StorageError that names it."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot read {path}", found=error.strerror) from None
    # torch raises whatever its unpickler, its archive reader and its modules do.
    except Exception as error:
        raise StorageError(
            f"{path} is damaged, or of another version",
            found=_gist(error),
            fix="Delete it to begin again, or restore a copy",
        ) from None


def append_log(folder: Path, record: dict[str, Any]) -> None:
    """Add one line of JSON; raises StorageError, and adds nothing, where that fails."""
    path = folder / LOG_NAME
    with writing(path), path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        line = json.dumps(record).encode() + b"\n"
        try:
            written = 0
            # A disk that fills up takes a part of the line, and fails at the next call.
            while written < len(line):
                written += file.write(line[written:])
        except OSError:
            file.truncate(size)
            raise


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder whose files take the place of those in ``folder`` if the block succeeds.

    Raises:
        StorageError: a file cannot be written; those in ``folder`` stay.
    """
    beside = folder.with_name(f"{folder.name}.part")
    try:
        with writing(folder):
            # Left by a process that was killed.
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            yield beside
            folder.mkdir(exist_ok=True)
            for path in sorted(beside.iterdir()):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong while a path is written becomes a StorageError that names it."""
    try:
        yield
    except Exception as error:
        # The tokenizers library raises plain Exception.
        if not isinstance(error, (OSError, SafetensorError)) and type(error) is not Exception:
            raise
        raise StorageError(
            f"cannot write {path}",
            found=getattr(error, "strerror", None) or _gist(error),
            fix="Mend that and start the same command again: it goes on from the last save",
        ) from None


def _gist(error: Exception) -> str:
    """The first sentence; torch adds advice that does not fit here."""
    if isinstance(error, KeyError):
        return f"no {error}"
    line = next(iter(str(error).splitlines()), "")
    return line.partition(". ")[0].rstrip(".:") or type(error).__name__
