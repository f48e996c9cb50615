"""Frames: the same bytes everywhere, and they show what the scene says."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from hermes_edge.synthetic import Scene, Sight, draw_scene, draw_stream, make_stream
from hermes_edge.synthetic.drawing import SIDE, _mask
from hermes_edge.synthetic.world import COLOURS, THINGS

# sha256 of all frames of a stream of 24 frames, by seed: equal on every platform and version.
FRAMES = {
    0: "1a45082b2426300dcf3d28dd413c1916b236b9683d56541b22ff7df25a311da9",
    7: "88af5c829d4a42e95fd174336889a2d51cba2b8bc1e8863d4c0014fecf11d112",
    1_100_000_003: "d6c1bcad954ec270968fb775377e17ba612bf37d1e87612de86d3ad611c5d815",
}


@pytest.mark.parametrize("seed", FRAMES)
def test_frames_are_equal_on_every_platform(seed: int) -> None:
    digest = hashlib.sha256()
    for frame in draw_stream(make_stream(seed, 24)):
        assert frame.shape == (SIDE, SIDE, 3)
        assert frame.dtype == np.uint8
        digest.update(frame.tobytes())
    assert digest.hexdigest() == FRAMES[seed]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("thing", THINGS)
def test_a_thing_has_its_colour_and_stands_out(thing: str, colour: str) -> None:
    scene = Scene(0, 2, (Sight(thing, colour),), THINGS.index(thing))
    for frame, cover in draw_scene(scene):
        assert set(np.unique(cover)) == {0, 1}
        inside = frame[cover == 1].astype(float).mean(axis=0)
        outside = frame[cover == 0].astype(float).mean(axis=0)
        others = {name: _mean_colour(name) for name in COLOURS}
        nearest = min(others, key=lambda name: float(np.abs(others[name] - inside).sum()))
        assert nearest == colour
        assert np.abs(inside - outside).max() > 40


def _mean_colour(colour: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Over many looks, so that their shifts of brightness cancel."""
    means = []
    for look in range(12):
        frame, cover = next(draw_scene(Scene(0, 1, (Sight("square", colour),), look)))
        means.append(frame[cover == 1].astype(float).mean(axis=0))
    mean: np.ndarray[tuple[int], np.dtype[np.float64]] = np.mean(means, axis=0)
    return mean


@pytest.mark.parametrize("radius", [22, 30, 44])
def test_no_two_things_look_alike(radius: int) -> None:
    masks = {thing: _mask(thing, radius) for thing in THINGS}
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
    assert moved >= 28
    for _, cover in draw_scene(Scene(0, 3, (), 5)):
        assert not cover.any()


def test_backgrounds_differ_and_noise_is_new_in_every_frame() -> None:
    first = [next(draw_scene(Scene(0, 1, (), look)))[0] for look in range(40)]
    spread = {round(float(frame.astype(float).std(axis=(0, 1)).max())) for frame in first}
    assert len(spread) > 8
    noisy = 0
    for look in range(40):
        one, two = (frame for frame, _ in draw_scene(Scene(0, 2, (), look)))
        noisy += bool((one != two).any())
    # One look of thirteen has no noise at all.
    assert 30 <= noisy <= 40


def test_a_scene_is_drawn_alike_wherever_it_stands() -> None:
    early, late = (Scene(first, 3, (Sight("moon", "blue"),), 9) for first in (0, 100))
    for (a, _), (b, _) in zip(draw_scene(early), draw_scene(late), strict=True):
        np.testing.assert_array_equal(a, b)
