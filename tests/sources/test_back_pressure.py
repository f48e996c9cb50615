"""Ring, rates and waits, step by step on a clock that the tests move."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from hermes_edge.errors import SettingsError, SourceError
from hermes_edge.sources import BackPressure, Frame
from hermes_edge.sources.reconnect import Backoff
from hermes_edge.sources.ring import Ring
from hermes_edge.sources.sampler import AdaptiveRate, Sampler
from hermes_edge.sources.still import LONGEST_SKIP_S, THRESHOLD_LEVELS, StillFilter


def frame(time_s: float, image: object = None) -> Frame:
    picture = np.zeros((1, 1, 3), np.uint8) if image is None else np.asarray(image, np.uint8)
    return Frame(picture, time_s, 1e9 + time_s)


def times(ring: Ring) -> list[float]:
    return [ring.take().time_s for _ in range(len(ring))]


@pytest.mark.parametrize("policy", ["latest", "adaptive"])
def test_a_full_ring_drops_the_oldest(policy: BackPressure) -> None:
    ring = Ring(policy, 3, fps=1)
    for second in range(5):
        assert ring.has_room
        ring.put(frame(second), second)
    assert ring.dropped == 2
    assert ring.oldest is not None
    assert ring.oldest.time_s == ring.oldest_arrived_s == 2
    assert times(ring) == [2, 3, 4]


@pytest.mark.parametrize("policy", ["every", "block"])
def test_a_ring_that_loses_nothing_has_no_room(policy: BackPressure) -> None:
    ring = Ring(policy, 2, fps=1)
    ring.put(frame(0), 0)
    assert ring.has_room
    ring.put(frame(1), 1)
    assert not ring.has_room
    ring.drop_outdated(1e6)
    assert ring.dropped == 0
    assert times(ring) == [0, 1]


def test_latest_drops_what_is_older_than_a_chunk_period() -> None:
    ring = Ring("latest", 4, fps=2)  # a period of 2 s
    for step in range(4):
        ring.put(frame(step / 2), step / 2)
    ring.drop_outdated(2.0)
    assert len(ring) == 4
    ring.drop_outdated(2.6)
    assert (len(ring), ring.dropped) == (2, 2)
    ring.drop_outdated(100)
    assert (len(ring), ring.dropped) == (0, 4)
    assert ring.oldest is None
    assert ring.oldest_arrived_s is None


def test_a_ring_knows_whether_its_newest_frame_was_lost() -> None:
    ring = Ring("latest", 2, fps=2)  # a period of 1 s
    for step in range(3):
        ring.put(frame(step), step / 2)
    assert ring.dropped == 1
    ring.drop_outdated(1.9)
    assert (len(ring), ring.dropped, ring.newest_dropped) == (1, 2, False)
    ring.drop_outdated(2.1)
    assert (len(ring), ring.dropped, ring.newest_dropped) == (0, 3, True)
    ring.put(frame(3), 3)
    assert not ring.newest_dropped
    ring.take()
    ring.drop_outdated(100)
    assert not ring.newest_dropped


def test_without_a_rate_latest_bounds_the_number_alone() -> None:
    ring = Ring("latest", 2, fps=None)
    for second in range(3):
        ring.put(frame(second), second)
    ring.drop_outdated(1e6)
    assert times(ring) == [1, 2]


def test_bad_arguments_of_a_ring() -> None:
    with pytest.raises(SourceError) as refused:
        Ring("newest", 2, None)  # type: ignore[arg-type]
    assert str(refused.value) == (
        "no such back-pressure policy: required latest, every, adaptive, block, found newest"
    )


@pytest.mark.parametrize(
    ("ring_frames", "message"),
    [
        (0, "is out of range: required at least 1, found 0"),
        (-1, "is out of range: required at least 1, found -1"),
        (2.5, "is not a whole number: required a whole number, at least 1, found 2.5"),
        (True, "is not a whole number: required a whole number, at least 1, found True"),
    ],
)
def test_a_ring_has_room_for_a_whole_number_of_frames(ring_frames: Any, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Ring("block", ring_frames, None)
    assert str(refused.value) == f"ring_frames {message}"


def test_a_rate_that_changes_starts_a_new_grid() -> None:
    sampler, taken = Sampler(2), []
    for tick in range(80):
        time_s = tick / 10
        if sampler.due(time_s):
            sampler.take(time_s)
            taken.append(time_s)
            if time_s == 2:
                sampler.change(0.5, time_s)
    assert taken == [0, 0.5, 1, 1.5, 2, 4, 6]


def simulate(encode_s: float, seconds: float, fps: float = 4) -> tuple[list[float], Ring, float]:
    """A consumer that takes one frame per ``encode_s``, behind the adaptive policy."""
    ring, rate, sampler = Ring("adaptive", 16, fps), AdaptiveRate(fps, 16), Sampler(fps)
    taken, free_s = [], 0.0
    for tick in range(int(30 * seconds)):
        now_s = tick / 30
        if sampler.due(now_s):
            sampler.take(now_s)
            if rate.observe(len(ring)):
                sampler.change(rate.fps, now_s)
            ring.put(frame(now_s), now_s)
        if len(ring) and now_s >= free_s:
            taken.append(ring.take().time_s)
            free_s = now_s + encode_s
    return taken, ring, rate.fps


@pytest.mark.parametrize("slower", [1.2, 3, 8, 30])
def test_an_adaptive_rate_ends_the_drops_and_spaces_frames_evenly(slower: float) -> None:
    encode_s = slower / 4
    early, ring, _ = simulate(encode_s, 200 * encode_s)
    settled = ring.dropped
    taken, ring, _ = simulate(encode_s, 600 * encode_s)
    assert ring.dropped == settled  # the second run repeats the first, and goes on
    gaps = np.diff(taken[len(early) :])
    # Neighbours differ by one step of the rate, and a tick of the source.
    assert (np.abs(np.diff(gaps)) <= np.maximum(gaps[1:], gaps[:-1]) * 0.7).all()
    assert np.median(gaps) == pytest.approx(encode_s, rel=0.35)


def test_an_adaptive_rate_is_left_alone_by_a_model_that_keeps_up() -> None:
    _, ring, fps = simulate(0.2, 60)
    assert (ring.dropped, fps) == (0, 4)


def test_an_adaptive_rate_recovers_and_has_bounds() -> None:
    rate = AdaptiveRate(4, 16)
    for _ in range(100):
        rate.observe(16)
    assert rate.fps == 4 / 64
    assert not rate.observe(16)
    for _ in range(16 * 50):
        rate.observe(0)
    assert rate.fps == 4


def test_waits_grow_with_full_jitter_up_to_a_bound() -> None:
    asked: list[tuple[float, float]] = []

    def highest(least_s: float, most_s: float) -> float:
        asked.append((least_s, most_s))
        return most_s

    backoff = Backoff(0.5, 30, least_s=0.1, settled_s=10, uniform=highest)
    waits = [backoff.next_s() for _ in range(9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert {least_s for least_s, _ in asked} == {0.1}
    backoff.connection_lasted(9.9)
    assert backoff.next_s() == 30
    backoff.connection_lasted(10)
    assert [backoff.next_s(), backoff.next_s()] == [0.5, 1]


def test_two_sources_that_fell_together_rise_apart() -> None:
    one, other = (Backoff(uniform=random.Random(seed).uniform) for seed in (1, 2))
    waits = [(one.next_s(), other.next_s()) for _ in range(20)]
    assert all(0.1 <= wait <= 30 for pair in waits for wait in pair)
    assert len({wait for pair in waits for wait in pair}) == 40


def scene(seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(40, 200, (15, 20, 3))
    return coarse.repeat(32, axis=0).repeat(32, axis=1)  # 480 x 640


def test_noise_is_still_and_a_small_object_is_not() -> None:
    noise, still = np.random.default_rng(1), StillFilter()
    assert not still.skips(frame(0, scene()))
    for step in range(1, 6):
        noisy = (scene() + noise.normal(0, 10, (480, 640, 3))).clip(0, 255)
        assert still.skips(frame(step / 10, noisy))
    moved = scene()
    moved[200:214, 300:314] += 55  # 3 % of the height
    assert not still.skips(frame(1, moved))
    assert still.skips(frame(1.1, moved))
    assert not still.skips(frame(1.2, scene()))


def test_a_colour_of_equal_brightness_is_seen() -> None:
    still = StillFilter()
    red, green = np.zeros((2, 64, 64, 3))
    red[..., 0], green[..., 1] = 200, 102  # the same grey
    assert not still.skips(frame(0, red))
    assert not still.skips(frame(1, green))


def test_a_slow_change_adds_up() -> None:
    still = StillFilter(longest_s=1e9)
    levels = [frame(step, np.full((40, 40, 3), 2 * step)) for step in range(64)]
    kept = [step for step, level in enumerate(levels) if not still.skips(level)]
    assert kept == list(range(0, 64, THRESHOLD_LEVELS // 2 + 1))


def test_a_still_scene_leaves_a_trace_of_time() -> None:
    still = StillFilter()
    kept = [second for second in range(35) if not still.skips(frame(second, scene()))]
    assert kept == [0, 10, 20, 30]
    assert all(b - a <= LONGEST_SKIP_S for a, b in itertools.pairwise(kept))


def test_what_was_forgotten_is_new() -> None:
    still = StillFilter()
    assert not still.skips(frame(0, scene()))
    still.forget()
    assert not still.skips(frame(1, scene()))
    assert still.skips(frame(2, scene()))


def test_another_size_is_compared_all_the_same() -> None:
    still = StillFilter()
    assert not still.skips(frame(0, scene()))
    assert still.skips(frame(1, scene()[::2, ::2]))
