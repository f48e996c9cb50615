"""A result that is made up, with known answers."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any

import pytest

from hermes_edge.bench.machine import describe_machine
from hermes_edge.recall.records import Asked, CellKey, Result
from hermes_edge.synthetic import KINDS

BUDGETS = (38, 246, 768)


@pytest.fixture(scope="session")
def made_up() -> Result:
    """Two lengths, three memories; ``full`` cannot hold the longer streams."""
    chance = random.Random(0)
    asked = []
    for stream in range(30):
        frames = 48 if stream < 20 else 480
        for _ in range(8):
            at = chance.randrange(frames)
            age = None if chance.random() < 0.1 else chance.randint(0, at)
            kind = chance.choice(KINDS)
            asked.append(Asked(stream, frames, kind, chance.random() < 0.25, at, age, "?", "red"))
    cells: dict[CellKey, tuple[bool | None, ...]] = {
        CellKey("full", 0): tuple(
            None if a.stream_frames == 480 else chance.random() < 0.95 for a in asked
        )
    }
    for policy, skill in (("window", 0.5), ("hermes", 0.7)):
        for budget in BUDGETS:
            share = skill + 0.25 * budget / 768
            cells[CellKey(policy, budget)] = tuple(chance.random() < share for _ in asked)
    return Result(
        asked=tuple(asked),
        cells=cells,
        bundle="made-up",
        bundle_sha256="0" * 64,
        seed=0,
        settings={"training_frames": 48, "tokens_per_frame": 16},
        machine=describe_machine(),
    )


@pytest.fixture
def parts(made_up: Result) -> dict[str, Any]:
    """Its fields, to be changed."""
    return {field.name: getattr(made_up, field.name) for field in fields(made_up)}
