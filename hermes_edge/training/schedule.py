"""What is trained when: one place for every number of the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hermes_edge.training.batches import Shape
from hermes_edge.training.losses import HintWeights


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps on batches of one shape.

    Attributes:
        from_rate, to_rate: of learning, from the first step to the last.
        hints: weights of the losses that lead the way.
    """

    steps: int
    shape: Shape
    from_rate: float
    to_rate: float
    hints: HintWeights


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
    # Where a phase begins and what it changes: docs/log.md, 2026-11-25.
    phases=(
        Phase(600, Shape(16, 6, 1, 14, 0.2), 1.5e-3, 1.5e-3, HintWeights(0.3, 0.5, 0.0)),
        Phase(300, Shape(16, 6, 1, 14, 0.3), 1.5e-3, 1.5e-3, HintWeights(1.0, 0.5, 0.0)),
        Phase(100, Shape(8, 16, 3, 24, 0.3), 1.2e-3, 1.2e-3, HintWeights(1.0, 0.5, 0.0)),
        Phase(400, Shape(8, 16, 3, 24, 0.5), 1.2e-3, 1.2e-3, HintWeights(1.0, 0.5, 0.0)),
        Phase(300, Shape(8, 16, 3, 24, 0.5), 1.2e-3, 1.2e-3, HintWeights(1.0, 0.5, 0.5)),
        Phase(1500, Shape(4, 48, 6, 40, 0.4), 1.0e-3, 5e-5, HintWeights(1.0, 0.5, 0.5)),
    ),
)

QUICK = Recipe(
    tower_steps=3,
    tower_frames=8,
    tower_rate=1e-3,
    phases=(
        Phase(4, Shape(2, 4, 1, 4, 0.5), 1e-3, 1e-3, HintWeights(0.3, 0.5, 0.0)),
        Phase(5, Shape(1, 8, 3, 4, 0.5), 1e-3, 1e-4, HintWeights(1.0, 0.5, 0.5)),
    ),
    log_every=2,
    save_every=2,
)
"""Nothing is learnt from it: the whole path in seconds."""

RECIPES: dict[str, Recipe] = {"hermes-tiny": RECIPE, "quick": QUICK}


def cosine(start: float, stop: float, passed: float) -> float:
    """From ``start`` to ``stop`` along half a cosine."""
    return stop + (start - stop) * 0.5 * (1 + math.cos(math.pi * passed))
