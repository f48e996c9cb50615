"""Frames of a stream, drawn in whole numbers: the same bytes on every platform.

frame    uint8 [SIDE, SIDE, 3], RGB
cover    uint8 [SIDE, SIDE], 0 where the background shows, i + 1 where sight i does
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hermes_edge.synthetic.world import DIGITS, Scene, Sight, Stream

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

SIDE = 128
_Y, _X = np.ogrid[0:SIDE, 0:SIDE]

_RGB = {
    "red": (225, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (240, 220, 50),
    "orange": (240, 130, 25),
    "purple": (150, 50, 195),
    "cyan": (60, 205, 220),
    "white": (240, 240, 240),
}
_RADII = ((28, 44), (22, 30))  # pixels, of one thing and of two
_FASTEST = 12  # pixels a frame
_MOST_NOISE = 12  # grey levels

# Corners of a five-pointed star, outer radius 100.
_STAR = (
    (0, -100), (23, -33), (95, -31), (38, 12), (59, 81),
    (0, 40), (-59, 81), (-38, 12), (-95, -31), (-23, -33),
)  # fmt: skip

# Rows of 5 pixels, the most significant bit to the left.
_FONT = {
    "zero": (14, 17, 19, 21, 25, 17, 14),
    "one": (4, 12, 4, 4, 4, 4, 14),
    "two": (14, 17, 1, 2, 4, 8, 31),
    "three": (31, 2, 4, 2, 1, 17, 14),
    "four": (2, 6, 10, 18, 31, 2, 2),
    "five": (31, 16, 30, 1, 1, 17, 14),
    "six": (6, 8, 16, 30, 17, 17, 14),
    "seven": (31, 1, 2, 4, 8, 8, 8),
    "eight": (14, 17, 17, 14, 17, 17, 14),
    "nine": (14, 17, 17, 15, 1, 2, 12),
}


def draw_stream(stream: Stream) -> Iterator[UInt8Array]:
    """All frames in order, each drawn when it is asked for."""
    for scene in stream.scenes:
        for frame, _ in draw_scene(scene):
            yield frame


def draw_scene(scene: Scene) -> Iterator[tuple[UInt8Array, UInt8Array]]:
    """Frames of a scene with what covers each pixel."""
    chance = random.Random(scene.look)
    background = _background(chance)
    noise_levels = chance.randint(0, _MOST_NOISE)
    # Raw bits of a bit generator are the same in every version of numpy; its methods are not.
    raw = np.random.PCG64(scene.look)
    movers = [_Mover(chance, sight, i, len(scene.sights)) for i, sight in enumerate(scene.sights)]
    for step in range(scene.frames):
        picture, cover = background.copy(), np.zeros((SIDE, SIDE), np.uint8)
        for index, mover in enumerate(movers):
            mover.draw(picture, cover, index + 1, step)
        picture += _noise(raw, noise_levels)
        yield np.clip(picture, 0, 255).astype(np.uint8), cover


class _Mover:
    """One thing on its way through a scene; of two, each keeps to its half."""

    def __init__(self, chance: random.Random, sight: Sight, index: int, count: int) -> None:
        self._radius = chance.randint(*_RADII[count - 1])
        width = SIDE // count
        self._least = (width * index + self._radius, self._radius)
        self._most = (width * (index + 1) - 1 - self._radius, SIDE - 1 - self._radius)
        self._start = [chance.randint(a, b) for a, b in zip(self._least, self._most, strict=True)]
        self._speed = [chance.randint(-_FASTEST, _FASTEST) for _ in range(2)]
        shift = chance.randint(-18, 18)
        self._colour = np.array([value + shift for value in _RGB[sight.colour]], np.int16)
        self._mask = _mask(sight.thing, self._radius)

    def draw(self, picture: npt.NDArray[np.int16], cover: UInt8Array, mark: int, step: int) -> None:
        x, y = (
            _reflect(start + speed * step, least, most)
            for start, speed, least, most in zip(
                self._start, self._speed, self._least, self._most, strict=True
            )
        )
        r = self._radius
        box = (slice(y - r, y + r + 1), slice(x - r, x + r + 1))
        picture[box][self._mask] = self._colour
        cover[box][self._mask] = mark


def _reflect(value: int, least: int, most: int) -> int:
    """A coordinate that bounces between two walls."""
    room = most - least
    if room == 0:
        return least
    turned = (value - least) % (2 * room)
    return least + min(turned, 2 * room - turned)


def _mask(thing: str, r: int) -> BoolArray:
    """Pixels of a thing in its box [2r+1, 2r+1]."""
    y, x = np.mgrid[-r : r + 1, -r : r + 1].astype(np.int64)
    across, down = np.abs(x), np.abs(y)
    square = x * x + y * y
    if thing in DIGITS:
        rows = (y + r) * 7 // (2 * r + 1)
        columns = (3 * x + 2 * r) * 5 // (4 * r + 1)
        bits = np.array(_FONT[thing])[rows]
        lit = (bits >> (4 - np.clip(columns, 0, 4))) & 1 == 1
        glyph: BoolArray = lit & (columns >= 0) & (columns < 5)
        return glyph
    masks = {
        "circle": square <= r * r,
        "ring": (square <= r * r) & (100 * square >= 36 * r * r),
        "square": (10 * across <= 8 * r) & (10 * down <= 8 * r),
        "diamond": across + down <= r,
        "cross": ((10 * across <= 3 * r) | (10 * down <= 3 * r)),
        "triangle": (10 * across <= 6 * (y + r)) & (10 * y <= 7 * r),
        "moon": (square <= r * r) & (100 * ((2 * x - r) ** 2 + 4 * y * y) > 4 * 81 * r * r),
    }
    mask: BoolArray = masks[thing] if thing in masks else _inside(_STAR, 100 * x, 100 * y, r)
    return mask


def _inside(
    corners: tuple[tuple[int, int], ...], x: Int64Array, y: Int64Array, scale: int
) -> BoolArray:
    """Even-odd rule over the polygon's edges."""
    odd = np.zeros(x.shape, np.bool_)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        if ay == by:
            continue
        ax, ay, bx, by = ax * scale, ay * scale, bx * scale, by * scale
        between = (y >= min(ay, by)) & (y < max(ay, by))
        side = (x - ax) * (by - ay) - (y - ay) * (bx - ax)
        odd ^= between & ((side < 0) if by > ay else (side > 0))
    return odd


def _background(chance: random.Random) -> npt.NDArray[np.int16]:
    """Dull enough that every colour stands out: int16 [SIDE, SIDE, 3]."""
    first, second = (
        np.array([chance.randint(20, 100)] * 3) + [chance.randint(-15, 15) for _ in range(3)]
        for _ in range(2)
    )
    kind, cell = chance.randrange(4), chance.randint(12, 32)
    # Share of the second grey in SIDE-ths: none, a gradient, a checkerboard, slanted stripes.
    if kind == 0:
        shares = np.zeros((SIDE, SIDE), np.int64)
    elif kind == 1:
        shares = np.broadcast_to(_Y, (SIDE, SIDE))
    elif kind == 2:
        shares = ((_X // cell + _Y // cell) % 2) * SIDE
    else:
        shares = (((_X + _Y) // cell) % 2) * SIDE
    steps = np.arange(SIDE + 1)[:, None]
    levels = ((first * (SIDE - steps) + second * steps) // SIDE).astype(np.int16)
    picture: npt.NDArray[np.int16] = levels[shares]
    return picture


def _noise(raw: np.random.PCG64, levels: int) -> npt.NDArray[np.int16]:
    """Whole numbers around 0, at most ``levels`` away: int16 [SIDE, SIDE, 1]."""
    words = raw.random_raw(SIDE * SIDE // 8)
    # Bytes of little-endian words, whatever the machine's order is.
    octets = words.astype("<u8").view(np.uint8).astype(np.int16)
    return ((octets * (2 * levels + 1)) // 256 - levels).reshape(SIDE, SIDE, 1)
