"""Single frames with a target for every visual token, for the tower's own training.

frames   uint8 [F, 64, 64, 3], as the runtime's resizer makes them
things   int64 [F, N], index into :data:`TARGETS`, or ``IGNORED``
colours  int64 [F, N]
"""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from hermes_edge.runtime.resize import FrameResizer
from hermes_edge.synthetic.drawing import SIDE, draw_scene
from hermes_edge.synthetic.questions import NOTHING
from hermes_edge.synthetic.world import COLOURS, DIGITS, SHAPES, THINGS, Scene, Sight
from hermes_edge.training.model import IMAGE_SIDE

TARGETS = (*THINGS, *COLOURS, NOTHING)
IGNORED = -100

_TOKENS_A_SIDE = 4
# A token counts as showing a thing from this share of its area; with less it has no target.
_LEAST_COVER = 0.05

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


def frame_batch(seed: int, count: int) -> tuple[UInt8Array, Int64Array, Int64Array]:
    """Frames, things and colours of ``count`` random scenes of one frame."""
    chance, resizer = random.Random(seed), FrameResizer(IMAGE_SIDE)
    frames = np.empty((count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    things = np.empty((count, _TOKENS_A_SIDE**2), np.int64)
    colours = np.empty_like(things)
    for index in range(count):
        scene = Scene(0, 1, _sights(chance), chance.getrandbits(32))
        frame, cover = next(draw_scene(scene))
        frames[index] = resizer.resize(frame)
        things[index], colours[index] = token_targets(scene, cover)
    return frames, things, colours


def token_targets(scene: Scene, cover: UInt8Array) -> tuple[Int64Array, Int64Array]:
    """What each visual token shows: int64 [N] each."""
    cell = SIDE // _TOKENS_A_SIDE
    squares = cover.reshape(_TOKENS_A_SIDE, cell, _TOKENS_A_SIDE, cell).swapaxes(1, 2)
    cells = squares.reshape(-1, cell * cell)
    # Of two marks, also where there is but one sight, or none.
    shares = np.stack([(cells == mark).mean(axis=1) for mark in (1, 2)])
    nothing = TARGETS.index(NOTHING)
    things = np.full(len(cells), nothing)
    colours = np.full(len(cells), nothing)
    for index, token in enumerate(shares.T):
        best = int(token.argmax())
        if token[best] >= _LEAST_COVER:
            things[index] = TARGETS.index(scene.sights[best].thing)
            colours[index] = TARGETS.index(scene.sights[best].colour)
        elif token[best] > 0:
            things[index] = colours[index] = IGNORED
    return things, colours


def _sights(chance: random.Random) -> tuple[Sight, ...]:
    kind = chance.random()
    count = 0 if kind < 0.05 else 2 if kind < 0.4 else 1
    pools = [SHAPES if chance.random() < 0.5 else DIGITS for _ in range(count)]
    return tuple(Sight(chance.choice(pool), chance.choice(COLOURS)) for pool in pools)
