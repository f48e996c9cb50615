"""Streams with many questions packed behind each, as one causal pass under a block mask.

    rows of a stream: [prefix | visual tokens that are kept | question | question | ...]

A question's rows see the prefix, the visual tokens of frames up to the one at which it is asked,
and themselves: just what the runtime lets a question see. Eviction leaves gaps in the positions
and streams run long, so positions start late and jump, and visual tokens are missing, in part of
the streams.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hermes_edge.runtime.resize import FrameResizer
from hermes_edge.runtime.text import TextCodec
from hermes_edge.synthetic.drawing import draw_scene
from hermes_edge.synthetic.questions import LETTERS, Question, Seen, pick_questions
from hermes_edge.synthetic.world import COLOURS, THINGS, Stream, make_stream
from hermes_edge.training.captions import scene_caption, story_caption
from hermes_edge.training.eviction import TOKENS, Int64Array, spread_positions, thinned
from hermes_edge.training.frames import token_targets
from hermes_edge.training.model import IMAGE_SIDE, WORDS

IGNORED = -100
_MOST_COUNT = 4
# Guidance and story, or any question: the positions behind the stream that must be left.
_LONGEST_QUESTION = 112


@dataclass(frozen=True, slots=True)
class Shape:
    """Streams of a batch."""

    streams: int
    frames: int
    most_scene_frames: int
    questions: int
    choice_share: float


@dataclass(frozen=True, slots=True)
class Batch:
    """B streams, padded to T rows.

    Attributes:
        frames: uint8 [B * F, 64, 64, 3].
        kept: int64 [M], visual tokens of [B * F * N] that are encoded.
        kept_rows: int64 [M], where they go in [B * T].
        ids: int64 [B, T], text rows' tokens, 0 elsewhere.
        positions: int64 [B, T].
        mask: bool [B, 1, T, T], True where a row sees another.
        answer_rows: int64 [A], rows of [B * T] that predict an answer's token.
        answers: int64 [A], the tokens.
        before, counts: int64 [M], what was seen in the scene before, and how often the thing
            has been seen so far, or ``IGNORED``.
        word_rows: int64 [W], rows of [B * T] with the things that questions name.
        word_facts: int64 [3, W], what is known of each: colour (or never, or several), how often
            it has been seen, and what was seen before it, or ``IGNORED``.
        options: int64 [2, O], rows of [B * T] with the words to choose from, and their letters.
        choices: int64 [2, C], rows that predict a letter, and which of ``WORDS`` it stands for.
    """

    frames: Tensor
    kept: Tensor
    kept_rows: Tensor
    ids: Tensor
    positions: Tensor
    mask: Tensor
    answer_rows: Tensor
    answers: Tensor
    before: Tensor
    counts: Tensor
    word_rows: Tensor
    word_facts: Tensor
    options: Tensor
    choices: Tensor


@dataclass(slots=True)
class _Packed:
    """One stream's rows before padding."""

    frames: list[npt.NDArray[np.uint8]]
    kept: Int64Array
    ids: list[int]
    positions: list[int]
    blocks: list[tuple[int, int, int]]  # first row, last row + 1, visual rows seen
    answer_rows: list[int]
    answers: list[int]
    before: list[int]
    counts: list[int]
    word_rows: list[int]
    word_facts: list[tuple[int, int, int]]
    options: list[tuple[int, int]]
    choices: list[tuple[int, int]]


class Packer:
    """Makes batches; holds the tokenizer's view of prefix and questions."""

    def __init__(self, codec: TextCodec, end_token: int) -> None:
        self._codec, self._end = codec, end_token
        self._prefix = codec.prefix_ids(None)
        self._resizer = FrameResizer(IMAGE_SIDE)
        self._things = {codec.encode(f" {thing}")[0]: thing for thing in THINGS}
        self._words = {codec.encode(f" {word}")[0]: place for place, word in enumerate(WORDS)}
        self._letters = {codec.encode(f" {name}")[0]: place for place, name in enumerate(LETTERS)}

    def batch(self, first_seed: int, shape: Shape) -> Batch:
        """The batch of seeds ``first_seed`` onwards."""
        chance = random.Random(first_seed)
        # One share for the whole batch, so that streams need little padding.
        share = 1.0 if chance.random() < 0.3 else chance.uniform(0.3, 1.0)
        seeds = range(first_seed, first_seed + shape.streams)
        return self._pad([self._pack(seed, shape, share) for seed in seeds])

    def _pack(self, seed: int, shape: Shape, share: float) -> _Packed:
        stream = make_stream(seed, shape.frames, shape.most_scene_frames)
        chance = random.Random(~seed)
        frames, kept, before, counts = self._film(stream, chance, share)
        count, prefix = len(kept), len(self._prefix)
        questions = pick_questions(stream, shape.questions, chance, choice_share=shape.choice_share)
        visual = spread_positions(kept, stream.frames, prefix, prefix + _LONGEST_QUESTION, chance)
        packed = _Packed(
            frames=frames,
            kept=kept,
            ids=[*self._prefix, *[0] * count],
            positions=[*range(prefix), *visual],
            blocks=[],
            answer_rows=[],
            answers=[],
            before=before,
            counts=counts,
            word_rows=[],
            word_facts=[],
            options=[],
            choices=[],
        )
        for question in questions:
            self._append(packed, question, kept, visual)
            self._name_things(packed, question, Seen(stream, question.asked_frame))
            self._list_options(packed, question)
        for caption in (scene_caption, story_caption):
            described = caption(stream, chance.randrange(stream.frames))
            self._append(packed, described, kept, visual)
        return packed

    def _append(
        self, packed: _Packed, question: Question, kept: Int64Array, visual: Sequence[int]
    ) -> None:
        ids = self._codec.question_ids(question.text)
        answer = [*self._codec.encode(question.answer), self._end]
        seen = int(np.searchsorted(kept, (question.asked_frame + 1) * TOKENS))
        first = len(packed.ids)
        start = visual[seen - 1] + 1 if seen else len(self._prefix)
        rows = [*ids, *answer[:-1]]
        packed.ids += rows
        packed.positions += range(start, start + len(rows))
        packed.blocks.append((first, first + len(rows), seen))
        packed.answer_rows += range(first + len(ids) - 1, first + len(rows))
        packed.answers += answer

    def _list_options(self, packed: _Packed, question: Question) -> None:
        """Every option's letter, at the row of its word; and the right one's word."""
        if not question.choice:
            return
        first, last, _ = packed.blocks[-1]
        for row, token in enumerate(packed.ids[first:last], first):
            if token in self._letters:
                packed.options.append((row + 1, self._letters[token]))
                if LETTERS[self._letters[token]] == question.answer:
                    word = self._words[packed.ids[row + 1]]
        # The last row of a block is fed with the letter.
        packed.choices.append((last - 2, word))

    def _name_things(self, packed: _Packed, question: Question, seen: Seen) -> None:
        """Facts about every thing that the question names, at the row that names it."""
        first, _, _ = packed.blocks[-1]
        ids = self._codec.question_ids(question.text.partition("?")[0])
        for row, token in enumerate(ids):
            thing = self._things.get(token)
            if thing is not None:
                packed.word_rows.append(first + row)
                packed.word_facts.append(_facts(seen, thing))

    def _film(
        self, stream: Stream, chance: random.Random, share: float
    ) -> tuple[list[npt.NDArray[np.uint8]], Int64Array, list[int], list[int]]:
        frames: list[npt.NDArray[np.uint8]] = []
        kept: list[Int64Array] = []
        before: list[int] = []
        counts: list[int] = []
        seen: dict[str, int] = {}
        nothing = len(THINGS)
        previous = nothing
        for scene in stream.scenes:
            for sight in scene.sights:
                seen[sight.thing] = seen.get(sight.thing, 0) + 1
            for frame, cover in draw_scene(scene):
                base = len(frames) * TOKENS
                frames.append(self._resizer.resize(frame))
                things, _ = token_targets(scene, cover)
                tokens = thinned(things, chance, share)
                kept.append(base + tokens)
                before += [previous] * len(tokens)
                for token in tokens:
                    thing = int(things[token])
                    shown = 0 <= thing < len(THINGS)
                    times = seen[THINGS[thing]] if shown else 0
                    counts.append(min(times, _MOST_COUNT) if shown else IGNORED)
            single = len(scene.sights) == 1
            previous = THINGS.index(scene.sights[0].thing) if single else nothing
        return frames, np.concatenate(kept), before, counts

    def _pad(self, packed: list[_Packed]) -> Batch:
        rows = max(len(stream.ids) for stream in packed)
        count, prefix = len(packed), len(self._prefix)
        ids = np.zeros((count, rows), np.int64)
        positions = np.zeros((count, rows), np.int64)
        mask = np.zeros((count, 1, rows, rows), np.bool_)
        kept, kept_rows, answer_rows, answers = [], [], [], []
        word_rows: list[int] = []
        options: list[tuple[int, int]] = []
        choices: list[tuple[int, int]] = []
        frames_each = len(packed[0].frames)
        for index, stream in enumerate(packed):
            length, visual = len(stream.ids), len(stream.kept)
            ids[index, :length] = stream.ids
            positions[index, :length] = stream.positions
            view = mask[index, 0]
            np.fill_diagonal(view, True)
            head = prefix + visual
            view[:head, :head] = np.tri(head, dtype=np.bool_)
            for first, stop, seen in stream.blocks:
                view[first:stop, : prefix + seen] = True
                view[first:stop, first:stop] = np.tri(stop - first, dtype=np.bool_)
            kept.append(stream.kept + index * frames_each * TOKENS)
            kept_rows.append(index * rows + prefix + np.arange(visual))
            answer_rows += [index * rows + row for row in stream.answer_rows]
            answers += stream.answers
            word_rows += [index * rows + row for row in stream.word_rows]
            options += [(index * rows + row, letter) for row, letter in stream.options]
            choices += [(index * rows + row, word) for row, word in stream.choices]
        return Batch(
            frames=torch.from_numpy(np.stack([f for stream in packed for f in stream.frames])),
            kept=torch.from_numpy(np.concatenate(kept)),
            kept_rows=torch.from_numpy(np.concatenate(kept_rows)),
            ids=torch.from_numpy(ids),
            positions=torch.from_numpy(positions),
            mask=torch.from_numpy(mask),
            answer_rows=torch.tensor(answer_rows),
            answers=torch.tensor(answers),
            before=torch.tensor([b for stream in packed for b in stream.before]),
            counts=torch.tensor([c for stream in packed for c in stream.counts]),
            word_rows=torch.tensor(word_rows, dtype=torch.int64),
            word_facts=_columns([f for stream in packed for f in stream.word_facts], 3),
            options=_columns(options, 2),
            choices=_columns(choices, 2),
        )


def _columns(rows: Sequence[tuple[int, ...]], count: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).view(-1, count).T


def _facts(seen: Seen, thing: str) -> tuple[int, int, int]:
    """Colour, count and what came before, as indices."""
    colours = seen.colours.get(thing, set())
    never, several = len(COLOURS), len(COLOURS) + 1
    colour = COLOURS.index(min(colours)) if len(colours) == 1 else several if colours else never
    before = seen.before(thing)
    return (
        colour,
        min(len(seen.where.get(thing, ())), _MOST_COUNT),
        IGNORED if before is None else THINGS.index(before),
    )
