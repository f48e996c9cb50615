"""Training that can be interrupted at any moment: one file, replaced as a whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

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
        with beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    # torch raises RuntimeError where the disk is full.
    except (OSError, RuntimeError) as error:
        beside.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise StorageError(
            f"cannot save the training to {target}",
            found=reason,
            fix="Make room and start the same command again: it goes on from the last save",
        ) from None


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
            found=str(error).splitlines()[0],
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
    """One line of JSON."""
    try:
        with (folder / LOG_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise StorageError(f"cannot write {folder / LOG_NAME}", found=error.strerror) from None
