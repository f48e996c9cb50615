"""What is trained when: one place for every number of the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hermes_edge.training.batches import Shape


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps on batches of one shape; the learning rate goes from one value to another."""

    steps: int
    shape: Shape
    from_rate: float
    to_rate: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """The tower's steps, then the decoder's phases in order; a save costs what lies between two."""

    tower_steps: int
    tower_frames: int
    tower_rate: float
    phases: tuple[Phase, ...]
    log_every: int = 20
    save_every: int = 100

    @property
    def steps(self) -> int:
        """Of both stages."""
        return self.tower_steps + sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[Phase, float]:
        """Phase of a step of the decoder, counted from 0, and how much of it has passed."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step / phase.steps
            step -= phase.steps
        raise IndexError(step)


RECIPE = Recipe(
    tower_steps=1800,
    tower_frames=64,
    tower_rate=2e-3,
    phases=(
        Phase(400, Shape(16, 6, 1, 14, 0.1), 1.5e-3, 1.5e-3),
        Phase(500, Shape(8, 16, 3, 20, 0.2), 1.2e-3, 1.2e-3),
        Phase(900, Shape(4, 48, 6, 30, 0.25), 1.0e-3, 5e-5),
    ),
)

QUICK = Recipe(
    tower_steps=3,
    tower_frames=8,
    tower_rate=1e-3,
    phases=(
        Phase(4, Shape(2, 4, 1, 4, 0.5), 1e-3, 1e-3),
        Phase(5, Shape(1, 8, 3, 4, 0.5), 1e-3, 1e-4),
    ),
    log_every=2,
    save_every=2,
)
"""Nothing is learnt from it: the whole path in seconds."""

RECIPES: dict[str, Recipe] = {"hermes-tiny": RECIPE, "quick": QUICK}


def cosine(start: float, stop: float, passed: float) -> float:
    """From ``start`` to ``stop`` along half a cosine."""
    return stop + (start - stop) * 0.5 * (1 + math.cos(math.pi * passed))
