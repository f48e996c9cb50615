"""Targets of visual tokens, against a count of pixels."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest

from hermes_edge.synthetic import Scene, Sight, draw_scene
from hermes_edge.synthetic.drawing import _RGB
from hermes_edge.synthetic.questions import NOTHING
from hermes_edge.synthetic.world import COLOURS, THINGS
from hermes_edge.training.frames import IGNORED, TARGETS, frame_batch, token_targets

CELL = 32  # pixels of a token's side


def counted(scene: Scene, cover: npt.NDArray[np.uint8]) -> list[tuple[str, str]]:
    """Thing and colour of every token: the most of its pixels, and 5 % of them at least."""
    found = []
    for row in range(4):
        for column in range(4):
            pixels = [0, 0, 0]
            for y in range(row * CELL, (row + 1) * CELL):
                for x in range(column * CELL, (column + 1) * CELL):
                    pixels[cover[y, x]] += 1
            most = max(pixels[1:])
            if most == 0:
                found.append((NOTHING, NOTHING))
            elif most * 20 < CELL * CELL:
                found.append(("", ""))
            else:
                sight = scene.sights[pixels[1:].index(most)]
                found.append((sight.thing, sight.colour))
    return found


def test_targets_are_what_covers_a_token() -> None:
    chance, kinds = random.Random(0), set()
    for index in range(24):
        sights = tuple(
            Sight(chance.choice(THINGS), chance.choice(COLOURS)) for _ in range(index % 3)
        )
        scene = Scene(0, 2, sights, chance.getrandbits(32))
        for _, cover in draw_scene(scene):
            things, colours = token_targets(scene, cover)
            for token, (thing, colour) in enumerate(counted(scene, cover)):
                kinds.add((len(sights), bool(thing), thing == NOTHING))
                assert things[token] == (TARGETS.index(thing) if thing else IGNORED)
                assert colours[token] == (TARGETS.index(colour) if colour else IGNORED)
    nothing, something, too_little = (True, True), (True, False), (False, False)
    assert {(2, *nothing), (2, *something), (2, *too_little), (1, *too_little)} <= kinds
    assert {kind for kind in kinds if kind[0] == 0} == {(0, *nothing)}


@pytest.mark.parametrize(("pixels", "shown"), [(1, False), (51, False), (52, True)])
def test_a_twentieth_of_a_token_is_enough(pixels: int, shown: bool) -> None:
    scene = Scene(0, 1, (Sight("ring", "red"), Sight("star", "blue")), 0)
    cover = np.zeros((128, 128), np.uint8)
    # Token 6 is in the second row and the third column.
    for y, x in [(y, x) for y in range(4) for x in range(13)][:pixels]:
        cover[CELL + y, CELL * 2 + x] = 2
    things, colours = token_targets(scene, cover)
    assert things[6] == (TARGETS.index("star") if shown else IGNORED)
    assert colours[6] == (TARGETS.index("blue") if shown else IGNORED)
    assert set(np.delete(things, 6)) == set(np.delete(colours, 6)) == {TARGETS.index(NOTHING)}


def test_a_batch_is_its_seed() -> None:
    one, same, other = (frame_batch(seed, 64) for seed in (3, 3, 4))
    assert all(np.array_equal(one[part], same[part]) for part in range(3))
    assert not np.array_equal(one[0], other[0])
    frames, things, colours = one
    assert frames.shape == (64, 64, 64, 3)
    assert things.shape == colours.shape == (64, 16)
    # Both say nothing, and neither, in the same places; otherwise a thing and a colour.
    nothing = TARGETS.index(NOTHING)
    for special in (nothing, IGNORED):
        assert np.array_equal(things == special, colours == special)
    told = (things != nothing) & (things != IGNORED)
    assert set(things[told]) <= {*range(len(THINGS))}
    assert set(colours[told]) <= {*range(len(THINGS), nothing)}
    # Every target comes up in a few batches.
    batches = [frame_batch(seed, 64) for seed in range(6)]
    targets = {*range(len(TARGETS)), IGNORED}
    assert {int(t) for _, *both in batches for half in both for t in half.flat} == targets


def test_targets_lie_where_the_frame_shows_them() -> None:
    frames, _, colours = frame_batch(7, 64)
    checked = 0
    for frame, targets in zip(frames.astype(int), colours, strict=True):
        for token, target in enumerate(targets):
            if target == IGNORED or TARGETS[target] == NOTHING:
                continue
            row, column = divmod(token, 4)
            square = frame[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
            # Colours are shifted by up to 18 levels, noise adds 12, and edges are mixed.
            away = np.abs(square - _RGB[TARGETS[target]]).max(axis=2)
            assert away.min() <= 40
            checked += 1
    assert checked > 300
