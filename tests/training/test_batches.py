"""Packed streams: each question sees what the runtime would let it see, and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hermes_edge.training.batches import Batch, Packer, Shape
from hermes_edge.training.model import MAX_POSITIONS, visual_tokens

SHAPE = Shape(streams=3, frames=12, most_scene_frames=3, questions=6, choice_share=0.3)
SEEDS = range(0, 300, 100)


def _embeds(model: Any, batch: Batch) -> Tensor:
    seen = visual_tokens(model, batch.frames).flatten(0, 1)[batch.kept]
    embeds: Tensor = model.get_input_embeddings()(batch.ids).flatten(0, 1)
    return embeds.index_copy(0, batch.kept_rows, seen).view(*batch.ids.shape, -1)


@torch.no_grad()
def _packed(model: Any, batch: Batch) -> Tensor:
    """Hidden states [B * T, E] of the whole batch in one pass."""
    outputs = model.model.language_model(
        inputs_embeds=_embeds(model, batch),
        position_ids=batch.positions,
        attention_mask=batch.mask,
        use_cache=False,
    )
    hidden: Tensor = outputs.last_hidden_state.flatten(0, 1)
    return hidden


def _questions(batch: Batch) -> list[tuple[int, list[int], list[int]]]:
    """Stream, rows of the question, rows before it that it sees; from the mask of its last row."""
    found = []
    rows = batch.ids.shape[1]
    for index, mask in enumerate(batch.mask[:, 0].numpy()):
        answers = sorted(r - index * rows for r in batch.answer_rows.tolist() if r // rows == index)
        starts = [r for r in answers if r - 1 not in answers]
        for start in starts:
            stop = start
            while stop + 1 in answers:
                stop += 1
            seen = np.flatnonzero(mask[stop])
            cut = [r for r in seen if r + 1 not in seen]
            own_first = next((r for r in seen if r > cut[0]), 0) if len(cut) > 1 else 0
            own = [int(r) for r in seen if r >= own_first]
            found.append((index, own, [int(r) for r in seen if r < own_first]))
    return found


@pytest.mark.parametrize("seed", SEEDS)
@torch.no_grad()
def test_a_packed_question_is_a_pass_of_its_own(model: Any, packer: Packer, seed: int) -> None:
    batch = packer.batch(seed, SHAPE)
    packed, embeds = _packed(model, batch), _embeds(model, batch)
    rows = batch.ids.shape[1]
    questions = _questions(batch)
    assert len(questions) >= 10
    for index, own, before in questions:
        # Those before are the prefix and visual rows, in order, without a gap in the rows.
        assert before == [*range(len(before))]
        count = len(before) + len(own)
        alone = model.model.language_model(
            inputs_embeds=embeds[index, before + own][None],
            position_ids=batch.positions[index, before + own][None],
            # transformers 5.24 takes jumps of positions for the beginnings of packed sequences.
            attention_mask=torch.ones(1, 1, count, count, dtype=torch.bool).tril(),
            use_cache=False,
        ).last_hidden_state[0, len(before) :]
        together = packed[[index * rows + row for row in own]]
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_are_predicted_by_the_rows_before_them(packer: Packer, seed: int) -> None:
    batch = packer.batch(seed, SHAPE)
    ids = batch.ids.flatten()
    end = batch.answers[-1]
    for row, answer in zip(batch.answer_rows.tolist(), batch.answers, strict=True):
        if answer != end:
            assert ids[row + 1] == answer


@pytest.mark.parametrize("seed", SEEDS)
def test_positions_grow_along_what_a_row_sees_and_stay_within_the_model(
    packer: Packer, seed: int
) -> None:
    batch = packer.batch(seed, replace(SHAPE, frames=48, most_scene_frames=6))
    assert int(batch.positions.max()) < MAX_POSITIONS
    for index, own, before in _questions(batch):
        positions = batch.positions[index, before + own]
        assert bool((positions.diff() > 0).all())
        assert bool((positions[len(before) :].diff() == 1).all())
        assert positions[len(before)] == positions[len(before) - 1] + 1


def test_positions_are_dense_holed_and_far_apart(packer: Packer) -> None:
    """Over many streams: starts behind the prefix and later, jumps, and none."""
    starts, jumps = set(), set()
    for seed in range(0, 4000, 100):
        batch = packer.batch(seed, SHAPE)
        rows = batch.ids.shape[1]
        for index in range(SHAPE.streams):
            visual = [r - index * rows for r in batch.kept_rows.tolist() if r // rows == index]
            positions = batch.positions[index, visual]
            starts.add(int(positions[0]))
            jumps.add(int(positions.diff().max()))
    assert min(starts) < 20 and max(starts) > 1000
    assert 1 in jumps and max(jumps) > 500


def test_equal_seeds_give_equal_batches(packer: Packer) -> None:
    one, same, other = (packer.batch(seed, SHAPE) for seed in (5, 5, 6))
    for field in fields(Batch):
        assert torch.equal(getattr(one, field.name), getattr(same, field.name))
    assert not torch.equal(one.frames, other.frames)


def test_what_is_seen_later_changes_no_question(model: Any, packer: Packer) -> None:
    batch = packer.batch(7, SHAPE)
    changed = replace(batch, frames=batch.frames.clone())
    each = SHAPE.frames
    for stream in range(SHAPE.streams):
        changed.frames[stream * each + each // 2 : (stream + 1) * each] = 0
    before, after = _packed(model, batch), _packed(model, changed)
    rows = batch.ids.shape[1]
    early = late = 0
    for index, own, seen in _questions(batch):
        kept = {r: k for r, k in zip(batch.kept_rows.tolist(), batch.kept.tolist(), strict=True)}
        newest = kept[index * rows + seen[-1]] // 16 - index * each
        same = torch.equal(before[index * rows + own[-1]], after[index * rows + own[-1]])
        assert same == (newest < each // 2)
        early, late = early + same, late + (not same)
    assert early and late
