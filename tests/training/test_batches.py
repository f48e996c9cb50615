"""Packed streams: each question sees what the runtime would let it see, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from hermes_edge.memory.probes import GLOBAL_GUIDANCE
from hermes_edge.runtime.resize import FrameResizer
from hermes_edge.runtime.text import TextCodec
from hermes_edge.synthetic import Question, Scene, Sight, Stream, draw_scene, make_stream
from hermes_edge.synthetic.world import COLOURS, THINGS
from hermes_edge.training.batches import _LONGEST_QUESTION, Batch, Packer, Shape
from hermes_edge.training.captions import _MOST_SCENES
from hermes_edge.training.eviction import spread_positions
from hermes_edge.training.frames import IGNORED, TARGETS, token_targets
from hermes_edge.training.model import MAX_POSITIONS, WORDS, token_id, visual_tokens
from hermes_edge.training.schedule import RECIPE

N = 16
SHAPE = Shape(streams=3, frames=12, most_scene_frames=3, questions=6, choice_share=0.3)
# Thinned and whole, dense and with holes, near and far: see the test of what the seeds hold.
SEEDS = (0, 100, 200, 300)


@dataclass
class Filmed:
    """What a stream of a batch is made from, and what was asked."""

    stream: Stream
    questions: list[Question] = field(default_factory=list)


class Recorder(Packer):
    """Packs, and remembers the questions."""

    def batch(self, first_seed: int, shape: Shape) -> Batch:
        self.filmed: list[Filmed] = []
        return super().batch(first_seed, shape)

    def _pack(self, seed: int, shape: Shape, share: float) -> Any:
        stream = make_stream(seed, shape.frames, shape.most_scene_frames)
        self.filmed.append(Filmed(stream))
        return super()._pack(seed, shape, share)

    def _append(self, packed: Any, question: Question, *rest: Any) -> None:
        self.filmed[-1].questions.append(question)
        super()._append(packed, question, *rest)


@pytest.fixture(scope="session")
def packer(codec: TextCodec, tokenizer: Tokenizer) -> Recorder:
    """Of batches."""
    return Recorder(codec, token_id(tokenizer, "<|im_end|>"))


@dataclass
class Kept:
    """Visual rows of a stream: tokens of [F * N], rows of the batch's [B * T], their positions."""

    tokens: Tensor
    rows: Tensor
    positions: Tensor

    @classmethod
    def of(cls, batch: Batch, index: int, frames: int) -> Kept:
        inside = batch.kept // (frames * N) == index
        rows = batch.kept_rows[inside]
        return cls(batch.kept[inside] % (frames * N), rows, batch.positions.flatten()[rows])


def every_question(batch: Batch, filmed: list[Filmed], end: int, codec: TextCodec) -> Iterator[Any]:
    """Index of the stream, question, its answer's tokens, and where they are among the answers."""
    start = 0
    for index, film in enumerate(filmed):
        for question in film.questions:
            answer = [*codec.encode(question.answer), end]
            yield index, question, answer, slice(start, start + len(answer))
            start += len(answer)
    assert start == len(batch.answers) == len(batch.answer_rows)


@torch.no_grad()
def packed_logits(model: Any, batch: Batch) -> Tensor:
    """Of all answers [A, V], in one pass."""
    seen = visual_tokens(model, batch.frames).flatten(0, 1)[batch.kept]
    embeds = model.get_input_embeddings()(batch.ids).flatten(0, 1)
    embeds = embeds.index_copy(0, batch.kept_rows, seen).view(*batch.ids.shape, -1)
    hidden = model.model.language_model(
        inputs_embeds=embeds,
        position_ids=batch.positions,
        attention_mask=batch.mask,
        use_cache=False,
    ).last_hidden_state
    logits: Tensor = model.lm_head(hidden.flatten(0, 1)[batch.answer_rows])
    return logits


def video_tokens(model: Any, stream: Stream) -> Tensor:
    """Visual tokens [F * N, E] of a stream as one video, as transformers makes them."""
    resizer = FrameResizer(64)
    frames = [resizer.resize(f) for scene in stream.scenes for f, _ in draw_scene(scene)]
    pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None] / 127.5 - 1
    # The last token ends the video's rows; streaming leaves it out.
    tokens: Tensor = model.model.get_video_features(pixels).pooler_output[0, :-1]
    return tokens


@pytest.mark.parametrize("seed", SEEDS)
@torch.no_grad()
def test_a_packed_question_is_a_pass_of_its_own(
    model: Any, packer: Recorder, codec: TextCodec, tokenizer: Tokenizer, seed: int
) -> None:
    """Prefix, what was seen up to the frame at which it is asked, question, answer: nothing else.

    Questions are said by their texts, frames by their scenes; only which tokens are missing, and
    where the others stand, is read from the batch.
    """
    batch = packer.batch(seed, SHAPE)
    together = packed_logits(model, batch)
    table, prefix = model.get_input_embeddings(), torch.tensor(codec.prefix_ids(None))
    films = [(film, video_tokens(model, film.stream)) for film in packer.filmed]
    end = token_id(tokenizer, "<|im_end|>")
    for index, question, answer, place in every_question(batch, packer.filmed, end, codec):
        kept = Kept.of(batch, index, SHAPE.frames)
        seen = kept.tokens // N <= question.asked_frame
        text = torch.tensor([*codec.question_ids(question.text), *answer[:-1]])
        embeds = torch.cat([table(prefix), films[index][1][kept.tokens[seen]], table(text)])
        visual = kept.positions[seen]
        first = int(visual[-1]) + 1
        own = torch.arange(first, first + len(text))
        positions = torch.cat([torch.arange(len(prefix)), visual, own])
        hidden = model.model.language_model(
            inputs_embeds=embeds[None],
            position_ids=positions[None],
            # Without a mask, transformers takes jumps of positions for the beginnings of sequences.
            attention_mask=torch.ones(len(embeds), len(embeds), dtype=torch.bool).tril()[
                None, None
            ],
            use_cache=False,
        ).last_hidden_state[0, -len(answer) :]
        torch.testing.assert_close(
            together[place], model.lm_head(hidden), rtol=1e-4, atol=1e-4, msg=question.text
        )
        assert batch.answers[place].tolist() == answer
        rows = batch.answer_rows[place]
        assert batch.positions.flatten()[rows].tolist() == own[-len(answer) :].tolist()


def test_the_seeds_hold_every_kind_of_stream(packer: Recorder) -> None:
    kinds = set()
    for seed in SEEDS:
        batch = packer.batch(seed, SHAPE)
        for index in range(SHAPE.streams):
            kept = Kept.of(batch, index, SHAPE.frames)
            whole = len(kept.tokens) == SHAPE.frames * N
            steps = kept.positions.diff()
            holes = not whole and torch.equal(steps.clamp(max=N), kept.tokens.diff().clamp(max=N))
            kinds |= {f"whole {whole}", f"holes {holes}", f"far {bool(steps.max() > N)}"}
    assert kinds == {
        f"{kind} {is_so}" for kind in ("whole", "holes", "far") for is_so in (False, True)
    }


@pytest.mark.parametrize("shape", [phase.shape for phase in RECIPE.phases])
def test_positions_grow_along_what_a_question_sees_and_stay_within_the_model(
    packer: Recorder, codec: TextCodec, tokenizer: Tokenizer, shape: Shape
) -> None:
    end, prefix = token_id(tokenizer, "<|im_end|>"), len(codec.prefix_ids(None))
    for seed in (0, 1000, 2000):
        batch = packer.batch(seed, replace(shape, streams=2))
        assert int(batch.positions.max()) < MAX_POSITIONS
        flat, rows = batch.positions.flatten(), batch.ids.shape[1]
        kept = [Kept.of(batch, index, shape.frames) for index in range(2)]
        for index in range(2):
            head = batch.positions[index, :prefix]
            assert torch.equal(head, torch.arange(prefix))
            assert torch.equal(
                kept[index].rows, index * rows + prefix + torch.arange(len(kept[index].rows))
            )
            assert bool((kept[index].positions.diff() > 0).all())
            assert int(kept[index].positions[0]) >= prefix
        for index, question, answer, place in every_question(batch, packer.filmed, end, codec):
            count = len(codec.question_ids(question.text)) + len(answer) - 1
            last = int(batch.answer_rows[place][-1])
            own = flat[last - count + 1 : last + 1]
            seen = kept[index].positions[kept[index].tokens // N <= question.asked_frame]
            assert own.tolist() == [*range(int(seen[-1]) + 1, int(seen[-1]) + 1 + count)]


def test_the_longest_question_and_story_fit_behind_a_stream(codec: TextCodec) -> None:
    scene = "red ring and blue star"
    story = ", ".join([scene] * _MOST_SCENES)
    count = len(codec.question_ids(GLOBAL_GUIDANCE)) + len(codec.encode(story))
    assert count <= _LONGEST_QUESTION
    asked = "Which came first, the triangle or the diamond? (A) ring (B) star (C) moon (D) circle"
    assert len(codec.question_ids(asked)) + 1 <= _LONGEST_QUESTION


@pytest.mark.parametrize("frames", [1, 12, 48])
def test_positions_are_dense_holed_and_far_apart(frames: int) -> None:
    """Over many streams: starts behind the prefix and later, jumps and none, up to the limit."""
    starts, steps, last, prefix = set(), set(), set(), 13
    for seed in range(3000):
        chance = random.Random(seed)
        kept = np.array(sorted(chance.sample(range(frames * N), chance.randint(1, frames * N))))
        found = np.array(spread_positions(kept, frames, prefix, prefix + _LONGEST_QUESTION, chance))
        assert len(found) == len(kept) and np.all(np.diff(found) > 0)
        starts.add(int(found[0]))
        steps |= {*np.diff(found).tolist()}
        last.add(int(found[-1]))
    # The question stands right behind the last, and ends within the model.
    limit = MAX_POSITIONS - _LONGEST_QUESTION - 1
    assert min(starts) == prefix and max(starts) > 1000
    assert 1 in steps and max(steps) > (800 if frames > 1 else 1)
    assert limit - 60 <= max(last) <= limit


def test_padding_does_not_matter(model: Any, packer: Recorder) -> None:
    padded = 0
    for seed in SEEDS:
        alone = packer.batch(seed, replace(SHAPE, streams=1))
        batch = packer.batch(seed, SHAPE)
        rows, length = batch.ids.shape[1], alone.ids.shape[1]
        count = len(alone.answers)
        assert torch.equal(batch.answers[:count], alone.answers)
        if length == rows:
            continue
        padded += 1
        logits, expected = packed_logits(model, batch), packed_logits(model, alone)
        torch.testing.assert_close(logits[:count], expected, rtol=1e-4, atol=1e-4)
        # Whatever stands in the padding, and wherever.
        batch.ids[0, length:] = torch.arange(rows - length) % 500
        batch.positions[0, length:] = 7
        assert torch.equal(packed_logits(model, batch), logits)
    assert padded >= 2


def test_equal_seeds_give_equal_batches(packer: Recorder) -> None:
    one, same, other = (packer.batch(seed, SHAPE) for seed in (5, 5, 6))
    for part in fields(Batch):
        assert torch.equal(getattr(one, part.name), getattr(same, part.name))
    assert not torch.equal(one.frames, other.frames)


@pytest.mark.parametrize("newest", [2, 6, 10])
def test_what_is_seen_later_changes_no_question(
    model: Any, packer: Recorder, codec: TextCodec, tokenizer: Tokenizer, newest: int
) -> None:
    batch = packer.batch(7, SHAPE)
    before = packed_logits(model, batch)
    for stream in range(SHAPE.streams):
        later = slice(stream * SHAPE.frames + newest + 1, (stream + 1) * SHAPE.frames)
        batch.frames[later] = 255 - batch.frames[later]
    after = packed_logits(model, batch)
    end, kinds = token_id(tokenizer, "<|im_end|>"), Counter[bool]()
    for _, question, _, place in every_question(batch, packer.filmed, end, codec):
        early = question.asked_frame <= newest
        kinds[early] += 1
        # Not bit by bit: a product of matrices may add up in another order.
        away = (before[place] - after[place]).abs().max()
        assert bool(away < 1e-4) == early, question
    assert kinds[True] >= 2 and kinds[False] >= 2


def frames_of(stream: Stream) -> Iterator[tuple[int, Scene, list[str | None]]]:
    """Index of the scene, the scene, and what each token of a frame shows: None for too little."""
    for index, scene in enumerate(stream.scenes):
        for _, cover in draw_scene(scene):
            things, _ = token_targets(scene, cover)
            yield index, scene, [None if t == IGNORED else TARGETS[t] for t in things]


@pytest.mark.parametrize("seed", [*range(0, 800, 100)])
def test_a_thinned_frame_keeps_a_token_of_every_thing(packer: Recorder, seed: int) -> None:
    batch = packer.batch(seed, SHAPE)
    counts = set()
    for index, film in enumerate(packer.filmed):
        tokens = Kept.of(batch, index, SHAPE.frames).tokens.tolist()
        assert tokens == sorted(set(tokens))
        for frame, (_, scene, shown) in enumerate(frames_of(film.stream)):
            kept = [token % N for token in tokens if token // N == frame]
            assert {shown[t] for t in kept} >= {sight.thing for sight in scene.sights}
            counts.add(len(kept))
    assert min(counts) >= 1
    # One share for the whole batch; a frame has more only where its things would be lost.
    assert counts == {N} or max(counts) - min(counts) <= 2


@pytest.mark.parametrize("shape", [SHAPE, Shape(2, 40, 1, 1, 0.0)], ids=["short", "long"])
@pytest.mark.parametrize("seed", SEEDS)
def test_hints_are_a_recount_of_the_scenes(packer: Recorder, seed: int, shape: Shape) -> None:
    batch = packer.batch(seed, shape)
    start, most = 0, 0
    for index, film in enumerate(packer.filmed):
        scenes = film.stream.scenes
        frames = [*frames_of(film.stream)]
        for token in Kept.of(batch, index, shape.frames).tokens.tolist():
            number, _, shown = frames[token // N]
            before: tuple[Sight, ...] = scenes[number - 1].sights if number else ()
            expected = THINGS.index(before[0].thing) if len(before) == 1 else len(THINGS)
            assert batch.before[start] == expected
            thing = shown[token % N]
            times = sum(scene.shows(thing or "") for scene in scenes[: number + 1])
            assert batch.counts[start] == (min(times, 4) if thing in THINGS else IGNORED)
            start, most = start + 1, max(most, times)
    assert start == len(batch.before) == len(batch.counts) == len(batch.kept)
    # Only in a long stream is there more than can be told.
    assert (most > 4) == (shape != SHAPE)


def facts(stream: Stream, frame: int, thing: str) -> tuple[int, int, int]:
    """Colour, count and forerunner of a thing as a viewer would note them, frame by frame."""
    colours: set[str] = set()
    forerunners: list[tuple[str, ...]] = []
    alone: list[bool] = []
    last: tuple[str, ...] | None = None
    for scene in stream.scenes:
        if scene.first_frame > frame:
            break
        names = tuple(sight.thing for sight in scene.sights)
        if thing in names:
            colours |= {sight.colour for sight in scene.sights if sight.thing == thing}
            forerunners.append(last or ())
            alone.append(len(names) == 1)
        last = names
    known = COLOURS.index(min(colours)) if len(colours) == 1 else len(COLOURS) + bool(colours)
    clear = len(forerunners) == 1 and alone[0] and len(forerunners[0]) == 1
    return known, min(len(alone), 4), THINGS.index(forerunners[0][0]) if clear else IGNORED


@pytest.mark.parametrize("seed", SEEDS)
def test_facts_stand_where_a_question_names_a_thing(
    packer: Recorder, codec: TextCodec, tokenizer: Tokenizer, seed: int
) -> None:
    batch = packer.batch(seed, replace(SHAPE, questions=12))
    end, ids = token_id(tokenizer, "<|im_end|>"), batch.ids.flatten()
    expected = []
    for index, question, answer, place in every_question(batch, packer.filmed, end, codec):
        if question.kind in ("scene", "story"):
            continue
        length = len(codec.question_ids(question.text)) + len(answer) - 1
        last = int(batch.answer_rows[place][-1])
        stream = packer.filmed[index].stream
        asked = question.text.partition("?")[0]
        for row in range(last - length + 1, last + 1):
            word = codec.decode([int(ids[row])]).strip()
            # Options and the answer name things too; nothing is known of them there.
            if word in asked.replace(",", "").split() and word in THINGS:
                asked = asked.replace(f" {word}", "", 1)
                expected.append((row, facts(stream, question.asked_frame, word)))
    assert len(expected) > 10
    rows, told = batch.word_rows.tolist(), [tuple(f) for f in batch.word_facts.T.tolist()]
    assert [*zip(rows, told, strict=True)] == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_options_stand_where_their_words_are(
    packer: Recorder, codec: TextCodec, tokenizer: Tokenizer, seed: int
) -> None:
    batch = packer.batch(seed, replace(SHAPE, questions=12, choice_share=0.7))
    end, ids = token_id(tokenizer, "<|im_end|>"), batch.ids.flatten()
    letters, words = [], []
    for _, question, _, place in every_question(batch, packer.filmed, end, codec):
        if question.choice:
            listed = question.text.partition("? ")[2].split()
            letters += [*zip(listed[1::2], range(4), strict=True)]
            right = listed[listed.index(question.answer) + 1]
            words.append((int(batch.answer_rows[place][0]), right))
    assert len(words) > 5
    rows, found = batch.options.tolist()
    told = [codec.decode([int(ids[row])]).strip() for row in rows]
    assert [*zip(told, found, strict=True)] == letters
    rows, found = batch.choices.tolist()
    assert [*zip(rows, (WORDS[word] for word in found), strict=True)] == words
