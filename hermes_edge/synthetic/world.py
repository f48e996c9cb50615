"""A seeded world to film: scenes of moving things, and nothing that a test could not know.

A stream is a list of scenes, one after the other, one frame a second. A scene shows one thing,
two, a digit or nothing. A *thing* is a shape or a digit, and has a colour:

    stream = make_stream(seed, frames=48)
    stream.scenes[0].sights          # (Sight("ring", "red"),)

Everything comes from Python's ``random.Random(seed)`` and whole-number arithmetic, so that a seed
means the same stream on every platform. Streams for training, validation and held-out questions
take their seeds from disjoint ranges: :data:`SPLITS`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hermes_edge.errors import SettingsError

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "diamond", "moon")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
THINGS = SHAPES + DIGITS
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "white")

SPLITS: dict[str, range] = {
    "train": range(1_000_000_000),
    "validation": range(1_000_000_000, 1_100_000_000),
    "held-out": range(1_100_000_000, 1_200_000_000),
}
"""Seeds of each split; no seed is in two of them."""

MOST_SCENE_FRAMES = 6

# Shares of the kinds of scenes; the rest shows one shape.
_EMPTY, _TWO, _DIGIT = 0.08, 0.14, 0.16
# Things that a stream may show; the others are there to be asked for in vain.
_CAST = 13
# Share of a stream's things that are shown in one scene and never again.
_SHOWN_ONCE = 0.55
# Share of the things that keep their colour for the whole stream.
_KEEPS_COLOUR = 0.8


@dataclass(frozen=True, slots=True)
class Sight:
    """One thing as it is seen in a scene."""

    thing: str
    colour: str


@dataclass(frozen=True, slots=True)
class Scene:
    """Frames ``first_frame`` to ``first_frame + frames - 1``; ``look`` seeds how they are drawn."""

    first_frame: int
    frames: int
    sights: tuple[Sight, ...]
    look: int

    @property
    def last_frame(self) -> int:
        """Its newest frame."""
        return self.first_frame + self.frames - 1

    def shows(self, thing: str) -> bool:
        """Whether the thing is in it."""
        return any(sight.thing == thing for sight in self.sights)


@dataclass(frozen=True, slots=True)
class Stream:
    """Scenes without gaps between them; frame i is seen at second i."""

    seed: int
    scenes: tuple[Scene, ...]

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return self.scenes[-1].last_frame + 1

    def scene_at(self, frame: int) -> int:
        """Index of the scene that shows a frame."""
        return next(i for i, scene in enumerate(self.scenes) if frame <= scene.last_frame)


def make_stream(seed: int, frames: int, most_scene_frames: int = MOST_SCENE_FRAMES) -> Stream:
    """The stream of a seed.

    Args:
        seed: 0 or more; its split is where :data:`SPLITS` has it.
        frames: length; the last scene is cut to it.
        most_scene_frames: a scene has 1 to this many frames.

    Raises:
        SettingsError: an argument is out of range.
    """
    for name, value, least in (
        ("seed", seed, 0),
        ("frames", frames, 1),
        ("most_scene_frames", most_scene_frames, 1),
    ):
        if value < least:
            raise SettingsError(f"{name} is out of range", required=f"{least} or more", found=value)
    chance = random.Random(seed)
    lengths: list[int] = []
    while sum(lengths) < frames:
        lengths.append(min(chance.randint(1, most_scene_frames), frames - sum(lengths)))
    director = _Director(chance, len(lengths))
    scenes: list[Scene] = []
    for index, length in enumerate(lengths):
        first = scenes[-1].last_frame + 1 if scenes else 0
        scenes.append(Scene(first, length, director.sights(index), chance.getrandbits(32)))
    return Stream(seed, tuple(scenes))


class _Director:
    """Decides what each scene shows. A thing is never in two scenes that follow each other."""

    def __init__(self, chance: random.Random, scenes: int) -> None:
        self._chance = chance
        shapes = chance.sample(SHAPES, len(SHAPES) - 2)
        digits = chance.sample(DIGITS, _CAST - len(shapes))
        self._colours = {thing: chance.choice(COLOURS) for thing in THINGS}
        self._fickle = {thing for thing in THINGS if chance.random() >= _KEEPS_COLOUR}
        once_shapes = round(_SHOWN_ONCE * len(shapes))
        once_digits = round(_SHOWN_ONCE * len(digits))
        once = shapes[:once_shapes] + digits[:once_digits]
        self._repeated = (shapes[once_shapes:], digits[once_digits:])
        # Each of the things shown once has its scene; in a short stream they share the scenes.
        places = range(scenes)
        chosen = chance.sample(places, min(len(once), max(scenes * 2 // 3, 1)))
        chance.shuffle(once)
        self._booked = dict(zip(chosen, once, strict=False))
        self._before: tuple[str, ...] = ()

    def sights(self, index: int) -> tuple[Sight, ...]:
        """What scene ``index`` shows; to be asked in order."""
        things = self._things(index)
        self._before = things
        return tuple(Sight(thing, self._colour(thing)) for thing in things)

    def _things(self, index: int) -> tuple[str, ...]:
        chance, kind = self._chance, self._chance.random()
        shapes, digits = ([t for t in pool if t not in self._before] for pool in self._repeated)
        booked = self._booked.get(index)
        if booked is not None:
            if kind < _TWO and shapes:
                pair = [booked, chance.choice(shapes)]
                chance.shuffle(pair)
                return tuple(pair)
            return (booked,)
        if kind < _EMPTY and index:
            return ()
        if kind < _EMPTY + _TWO and len(shapes) > 1:
            return tuple(chance.sample(shapes, 2))
        pool = digits if kind < _EMPTY + _TWO + _DIGIT and digits else shapes
        return (chance.choice(pool),)

    def _colour(self, thing: str) -> str:
        if thing in self._fickle:
            return self._chance.choice(COLOURS)
        return self._colours[thing]
