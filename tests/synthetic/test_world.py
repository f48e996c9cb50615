"""Streams: what a seed means, and what holds for all of them."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from hermes_edge.errors import SettingsError
from hermes_edge.synthetic import SPLITS, Stream, make_stream
from hermes_edge.synthetic.world import COLOURS, DIGITS, MOST_SCENE_FRAMES, SHAPES

LENGTHS = (1, 2, 7, 48, 480)


def _streams(count: int = 40) -> list[Stream]:
    return [make_stream(seed, frames) for seed in range(count) for frames in LENGTHS]


def test_the_world_is_rich_enough() -> None:
    assert len(set(SHAPES)) >= 8
    assert len(set(COLOURS)) >= 8
    assert len(set(DIGITS)) == 10


def test_equal_seeds_give_equal_streams_and_others_do_not() -> None:
    streams = [make_stream(seed, 48) for seed in range(50)]
    assert streams == [make_stream(seed, 48) for seed in range(50)]
    assert len({stream.scenes for stream in streams}) == 50


def test_splits_share_no_seed() -> None:
    ranges = sorted(SPLITS.values(), key=lambda seeds: seeds.start)
    assert set(SPLITS) == {"train", "validation", "held-out"}
    for before, after in itertools.pairwise(ranges):
        assert before.stop <= after.start
    assert all(len(seeds) >= 1_000_000 for seeds in ranges)


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("most", [1, 3, MOST_SCENE_FRAMES])
def test_scenes_follow_each_other_to_the_last_frame(frames: int, most: int) -> None:
    for seed in range(20):
        stream = make_stream(seed, frames, most)
        assert stream.frames == frames
        shown = [
            frame
            for scene in stream.scenes
            for frame in range(scene.first_frame, scene.last_frame + 1)
        ]
        assert shown == [*range(frames)]
        assert all(1 <= scene.frames <= most for scene in stream.scenes)
        for frame in range(frames):
            scene = stream.scenes[stream.scene_at(frame)]
            assert scene.first_frame <= frame <= scene.last_frame


def test_a_thing_is_never_in_two_scenes_in_a_row() -> None:
    for stream in _streams():
        for before, after in itertools.pairwise(stream.scenes):
            names = [sight.thing for sight in (*before.sights, *after.sights)]
            assert len(names) == len(set(names))


def test_scenes_have_all_lengths_up_to_six_alike() -> None:
    lengths = Counter(scene.frames for stream in _streams() for scene in stream.scenes[:-1])
    assert set(lengths) == {1, 2, 3, 4, 5, 6}
    assert min(lengths.values()) > 0.14 * lengths.total()


def test_every_kind_of_scene_occurs() -> None:
    kinds: Counter[str] = Counter()
    for stream in _streams():
        for scene in stream.scenes:
            digits = any(sight.thing in DIGITS for sight in scene.sights)
            kinds[f"{len(scene.sights)}{' with a digit' if digits else ''}"] += 1
    shares = {kind: count / kinds.total() for kind, count in kinds.items()}
    assert set(shares) == {"0", "1", "2", "1 with a digit", "2 with a digit"}
    assert 0.03 < shares["0"] < 0.15
    assert 0.05 < shares["2"] < 0.3
    assert 0.1 < shares["1 with a digit"] < 0.4
    assert shares["1"] > 0.3


def test_some_things_never_appear_however_long_the_stream_is() -> None:
    for seed in range(20):
        scenes = make_stream(seed, 2000).scenes
        seen = {sight.thing for scene in scenes for sight in scene.sights}
        assert 8 <= len(seen) <= 13


def test_long_streams_keep_things_that_were_seen_once() -> None:
    for seed in range(20):
        scenes = make_stream(seed, 480).scenes
        counts = Counter(sight.thing for scene in scenes for sight in scene.sights)
        assert sum(count == 1 for count in counts.values()) >= 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((-1, 5), "seed is out of range: required 0 or more, found -1"),
        ((0, 0), "frames is out of range: required 1 or more, found 0"),
        ((0, 5, 0), "most_scene_frames is out of range: required 1 or more, found 0"),
    ],
)
def test_arguments_out_of_range(arguments: tuple[int, ...], text: str) -> None:
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        make_stream(*arguments)
