"""What eviction leaves: tokens are missing, positions start late and jump."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from hermes_edge.synthetic.world import THINGS
from hermes_edge.training.model import MAX_POSITIONS

TOKENS = 16
"""N: visual tokens of a frame."""

Int64Array = npt.NDArray[np.int64]


def thinned(things: Int64Array, chance: random.Random, share: float) -> Int64Array:
    """Tokens of a frame that are kept; one of each thing always is."""
    if share == 1.0:
        return np.arange(TOKENS)
    kept = set(chance.sample(range(TOKENS), max(round(share * TOKENS), 1)))
    for thing in set(things.tolist()):
        if 0 <= thing < len(THINGS):
            kept.add(chance.choice(np.flatnonzero(things == thing).tolist()))
    return np.array(sorted(kept))


def spread_positions(
    kept: Int64Array, frames: int, prefix: int, reserved: int, chance: random.Random
) -> list[int]:
    """Positions of the visual rows: dense, with the holes of what is missing, or far apart."""
    dense = chance.random() < 0.5
    offsets = np.arange(len(kept)) if dense else kept.copy()
    room = MAX_POSITIONS - reserved - 1 - int(offsets[-1])
    if chance.random() < 0.6 and room > 0:
        jumps = [chance.randint(0, chance.randint(0, room)) for _ in range(chance.randint(1, 4))]
        total = max(sum(jumps), 1)
        scale = min(1.0, chance.randint(0, room) / total)
        for at, jump in enumerate(jumps):
            frame = 0 if at == 0 else chance.randrange(frames)
            offsets[kept >= frame * TOKENS] += int(jump * scale)
    return [prefix + int(offset) for offset in offsets]
