"""Frames: the same bytes everywhere, and they show what the scene says."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest

from hermes_edge.synthetic import Scene, Sight, draw_scene, draw_stream, make_stream
from hermes_edge.synthetic.drawing import SIDE
from hermes_edge.synthetic.world import COLOURS, THINGS

# sha256 of all frames of a stream of 24 frames, by seed: equal on every platform and version.
FRAMES = {
    0: "1a45082b2426300dcf3d28dd413c1916b236b9683d56541b22ff7df25a311da9",
    7: "88af5c829d4a42e95fd174336889a2d51cba2b8bc1e8863d4c0014fecf11d112",
    1_100_000_003: "d6c1bcad954ec270968fb775377e17ba612bf37d1e87612de86d3ad611c5d815",
}

RGB = {
    "red": (225, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (240, 220, 50),
    "orange": (240, 130, 25),
    "purple": (150, 50, 195),
    "cyan": (60, 205, 220),
    "white": (240, 240, 240),
}
SHIFT, NOISE = 18, 12  # grey levels, at most


@pytest.mark.parametrize("seed", FRAMES)
def test_frames_are_equal_on_every_platform(seed: int) -> None:
    digest = hashlib.sha256()
    for frame in draw_stream(make_stream(seed, 24)):
        assert frame.shape == (SIDE, SIDE, 3)
        assert frame.dtype == np.uint8
        digest.update(frame.tobytes())
    assert digest.hexdigest() == FRAMES[seed]


@pytest.mark.parametrize("thing", THINGS)
def test_every_pixel_of_a_thing_has_its_colour_and_it_stands_out(thing: str) -> None:
    for look, colour in enumerate(COLOURS, 8 * THINGS.index(thing)):
        for frame, cover in draw_scene(Scene(0, 2, (Sight(thing, colour),), look)):
            assert set(np.unique(cover)) == {0, 1}
            inside, outside = (frame[cover == mark].astype(int) for mark in (1, 0))
            fitting = [
                name for name, rgb in RGB.items() if np.abs(inside - rgb).max() <= SHIFT + NOISE
            ]
            assert fitting == [colour]
            assert np.ptp(inside, axis=0).max() <= 2 * NOISE
            assert np.abs(inside.mean(axis=0) - outside.mean(axis=0)).max() > 40


def test_each_of_two_things_has_its_own_colour() -> None:
    for look, (first, second) in enumerate(itertools.permutations(COLOURS, 2)):
        sights = (Sight("moon", first), Sight("four", second))
        frame, cover = next(draw_scene(Scene(0, 1, sights, look)))
        for mark, colour in ((1, first), (2, second)):
            off = np.abs(frame[cover == mark].astype(int) - RGB[colour])
            assert off.max() <= SHIFT + NOISE


@pytest.mark.parametrize("look", range(6))
@pytest.mark.parametrize("beside", [(), (Sight("ring", "red"),)])
def test_no_two_things_look_alike(look: int, beside: tuple[Sight, ...]) -> None:
    # One look gives all things the same place and size.
    masks = {}
    for thing in THINGS:
        scene = Scene(0, 1, (Sight(thing, "red"), *beside), look)
        masks[thing] = next(draw_scene(scene))[1] == 1
    for first, second in itertools.combinations(THINGS, 2):
        a, b = masks[first], masks[second]
        assert (a & b).sum() / (a | b).sum() < 0.85, (first, second)


def test_two_things_keep_apart_and_both_are_seen() -> None:
    for look in range(60):
        scene = Scene(0, 6, (Sight("star", "red"), Sight("seven", "cyan")), look)
        for _, cover in draw_scene(scene):
            left, right = cover[:, : SIDE // 2], cover[:, SIDE // 2 :]
            assert set(np.unique(left)) == {0, 1}
            assert set(np.unique(right)) == {0, 2}


def test_things_move_and_an_empty_scene_shows_nothing() -> None:
    moved = 0
    for look in range(30):
        covers = [cover for _, cover in draw_scene(Scene(0, 6, (Sight("ring", "red"),), look))]
        moved += any((a != b).any() for a, b in itertools.pairwise(covers))
        assert all((cover == 1).sum() == (covers[0] == 1).sum() for cover in covers)
        centres = np.array([np.argwhere(cover).mean(axis=0) for cover in covers])
        assert np.abs(np.diff(centres, axis=0)).max() <= 12.001  # pixels a frame
    assert moved >= 28
    for _, cover in draw_scene(Scene(0, 3, (), 5)):
        assert not cover.any()


def test_backgrounds_differ_and_noise_is_new_in_every_frame() -> None:
    patterns = Counter(_pattern(look) for look in range(80))
    assert set(patterns) == {"plain", "gradient", "stripes", "checkerboard"}
    assert min(patterns.values()) >= 8
    noisy = 0
    for look in range(40):
        one, two = (frame for frame, _ in draw_scene(Scene(0, 2, (), look)))
        noisy += bool((one != two).any())
    # One look of thirteen has no noise at all.
    assert 30 <= noisy <= 40


def _pattern(look: int) -> str:
    frame, _ = next(draw_scene(Scene(0, 1, (), look)))
    # Noise is grey: it cancels between two channels.
    tint = frame[..., 0].astype(int) - frame[..., 2]
    if (tint == tint[0, 0]).all():
        return "plain"
    if (tint == tint[:, :1]).all():
        return "gradient"
    return "stripes" if (tint[1:, :-1] == tint[:-1, 1:]).all() else "checkerboard"


def test_a_scene_is_drawn_alike_wherever_it_stands() -> None:
    early, late = (Scene(first, 3, (Sight("moon", "blue"),), 9) for first in (0, 100))
    for (a, _), (b, _) in zip(draw_scene(early), draw_scene(late), strict=True):
        np.testing.assert_array_equal(a, b)
