"""A result as one JSON document: equal results give equal bytes, whole or not at all on disk."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hermes_edge.bench.figures import MachineFigures
from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.recall.records import Asked, CellKey, Result

SCHEMA_VERSION = 1

_LETTERS: dict[bool | None, str] = {True: "1", False: "0", None: "-"}
_ANSWERS = {letter: answer for answer, letter in _LETTERS.items()}


def to_document(result: Result) -> str:
    """One line of JSON; a cell's answers are a string of ``1``, ``0`` and ``-`` by question."""
    cells = [
        {**asdict(key), "answers": "".join(_LETTERS[answer] for answer in answers)}
        for key, answers in result.cells.items()
    ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "bundle": result.bundle,
        "bundle_sha256": result.bundle_sha256,
        "seed": result.seed,
        "settings": result.settings,
        "machine": asdict(result.machine),
        "asked": [asdict(asked) for asked in result.asked],
        "cells": cells,
    }
    return json.dumps(document, sort_keys=True) + "\n"


def from_document(text: str) -> Result:
    """The result of a document.

    Raises:
        SettingsError: it is not one, or of another version.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        version = found["schema_version"]
        if version != SCHEMA_VERSION:
            raise SettingsError(
                "a recall document of another version", required=SCHEMA_VERSION, found=version
            )
        asked = tuple(Asked(**record) for record in found["asked"])
        cells = {
            CellKey(cell["policy"], cell["budget_tokens"]): tuple(
                _ANSWERS[letter] for letter in cell["answers"]
            )
            for cell in found["cells"]
        }
        if {len(answers) for answers in cells.values()} - {len(asked)}:
            raise ValueError("a cell with another number of answers than questions")
        return Result(
            asked=asked,
            cells=cells,
            bundle=found["bundle"],
            bundle_sha256=found["bundle_sha256"],
            seed=found["seed"],
            settings=found["settings"],
            machine=MachineFigures(**found["machine"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            "not a recall document",
            required="what hermes-edge recall --json writes",
            found=f"{type(error).__name__}: {error}",
        ) from None


def write_document(path: Path, result: Result) -> None:
    """Write it beside and rename it, so that an old file is replaced whole or stays.

    Raises:
        StorageError: it cannot be written.
    """
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(to_document(result))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}",
            found=error.strerror,
            fix="Make room, or name another file with --json",
        ) from None
