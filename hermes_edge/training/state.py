"""Training that can be interrupted at any moment: one file, replaced as a whole."""

from __future__ import annotations

import json
import os
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
    try:
        with writing(target):
            with beside.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
    except StorageError:
        beside.unlink(missing_ok=True)
        raise


def load_state(folder: Path, recipe: str, seed: int) -> dict[str, Any] | None:
    """The saved state, or None where training has not begun.

    Raises:
        StorageError: the file is damaged.
        SettingsError: it belongs to another recipe or seed.
    """
    path = folder / STATE_NAME
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        found = (state["recipe"], state["seed"])
    # torch raises whatever its unpickler and its archive reader do.
    except Exception as error:
        raise StorageError(
            f"{path} is damaged",
            found=_first_line(error),
            fix="Delete it to begin again, or restore a copy",
        ) from None
    if found != (recipe, seed):
        raise SettingsError(
            f"{folder} holds another training",
            required=f"recipe {recipe}, seed {seed}",
            found=f"recipe {found[0]}, seed {found[1]}",
            fix="Choose another folder",
        )
    return state


def append_log(folder: Path, record: dict[str, Any]) -> None:
    """Add one line of JSON; raises StorageError where that fails."""
    path = folder / LOG_NAME
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong while a path is written becomes a StorageError that names it."""
    try:
        yield
    # torch raises RuntimeError where the disk is full, safetensors an error of its own.
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise StorageError(
            f"cannot write {path}",
            found=reason,
            fix="Mend that and start the same command again: it goes on from the last save",
        ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
