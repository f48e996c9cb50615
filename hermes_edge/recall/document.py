"""A result as one JSON document: equal results give equal bytes, on every machine and day."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hermes_edge.bench.figures import MachineFigures
from hermes_edge.errors import SettingsError
from hermes_edge.recall.records import Asked, CellKey, Result
from hermes_edge.storage import write_whole

SCHEMA_VERSION = 1

_LETTERS: dict[bool | None, str] = {True: "1", False: "0", None: "-"}
_ANSWERS = {letter: answer for answer, letter in _LETTERS.items()}
_MOST_FAULTS = 3
_SOURCE = "what hermes-edge recall --json writes"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Cell(_Record):
    policy: str
    budget_tokens: int = Field(ge=0)
    answers: str = Field(pattern=r"^[01-]*$")


class _Settings(BaseModel):
    """Those on which shares of the budget are based; others may follow."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    training_frames: int = Field(ge=1)
    tokens_per_frame: int = Field(ge=1)


class _Document(_Record):
    schema_version: Literal[1]
    bundle: str
    bundle_sha256: str
    seed: int
    settings: _Settings
    machine: MachineFigures
    asked: tuple[Asked, ...]
    cells: tuple[_Cell, ...]


def to_document(result: Result) -> str:
    """One line of JSON; a cell's answers are a string of ``1``, ``0`` and ``-`` by question."""
    cells = [
        {**asdict(key), "answers": "".join(_LETTERS[answer] for answer in answers)}
        for key, answers in sorted(result.cells.items())
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
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"


def from_document(text: str | bytes) -> Result:
    """The result of a document.

    Raises:
        SettingsError: it is not one, is damaged, or of another version.
    """
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"no JSON: {error}") from None
    version = found.get("schema_version") if isinstance(found, dict) else None
    if version is None:
        raise _damaged("JSON without a schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise SettingsError(
            "a recall document of another version",
            required=SCHEMA_VERSION,
            found=json.dumps(version),
        )
    try:
        document = _Document.model_validate_json(text)
    except ValidationError as error:
        raise _damaged(_faults(error)) from None
    return Result(
        asked=document.asked,
        cells=_cells(document),
        bundle=document.bundle,
        bundle_sha256=document.bundle_sha256,
        seed=document.seed,
        settings=found["settings"],
        machine=document.machine,
    )


def write_document(path: Path, result: Result) -> None:
    """Write it whole; an old file is replaced or stays as it was.

    Raises:
        StorageError: it cannot be written.
    """
    fix = "Make room, or name another file with --json"
    write_whole(path, to_document(result).encode("ascii"), fix)


def _cells(document: _Document) -> dict[CellKey, tuple[bool | None, ...]]:
    cells: dict[CellKey, tuple[bool | None, ...]] = {}
    asked = len(document.asked)
    for cell in document.cells:
        key = CellKey(cell.policy, cell.budget_tokens)
        name = f"{key.policy} at {key.budget_tokens} tokens"
        if key in cells:
            raise _damaged(f"two cells of {name}")
        if len(cell.answers) != asked:
            raise _damaged(f"{len(cell.answers)} answers of {name} to {asked} questions")
        cells[key] = tuple(_ANSWERS[letter] for letter in cell.answers)
    return cells


def _damaged(found: str) -> SettingsError:
    return SettingsError("not a recall document", required=_SOURCE, found=found)


def _faults(error: ValidationError) -> str:
    """The first few: one fault of a writer is one in every question."""
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    more = len(faults) - _MOST_FAULTS
    return "; ".join(faults[:_MOST_FAULTS]) + (f"; and {more} more" if more > 0 else "")
