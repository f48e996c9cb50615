"""Decoder and vision tower before tracing, against transformers' own classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from hermes_edge.export.checkpoint import Checkpoint
from hermes_edge.export.decoder import Decoder, EmbeddingProbe, segment_mask
from hermes_edge.export.random_checkpoint import make_random_checkpoint
from hermes_edge.export.rotary import inverse_frequencies, rotate, rotations
from hermes_edge.export.vision import Vision, pooling_matrix

# Relative to the largest value; measured 7e-7 at most.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Pair:
    """A checkpoint, opened by us and by transformers."""

    checkpoint: Checkpoint
    original: LlavaOnevisionForConditionalGeneration
    decoder: Decoder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder: Path = make_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", "tiny")
    checkpoint = Checkpoint.open(folder)
    original = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    decoder = Decoder(checkpoint.config.decoder, checkpoint.weights, torch.float32)
    # transformers hands its models out in evaluation mode.
    assert not original.training
    return Pair(checkpoint, original, decoder)


def error(measured: Tensor, expected: Tensor) -> float:
    assert measured.shape == expected.shape
    return float((measured - expected).abs().max() / expected.abs().max())


def nothing(pair: Pair) -> list[Tensor]:
    """What is bound while the memory is empty: a row of noise that nobody may see."""
    spec = pair.checkpoint.config.decoder
    return [torch.full((1, spec.kv_heads, spec.head_size), 3.0)] * (2 * spec.layers)


def forward(
    pair: Pair, rows: Tensor, positions: Tensor, segments: list[int], past: list[Tensor] | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    every = torch.arange(len(rows))
    visible = torch.tensor([past is not None])
    caches = nothing(pair) if past is None else past
    logits, probes, *present = pair.decoder(
        rows, positions, torch.tensor(segments), every, every, visible, caches
    )
    return logits, probes, present


def positions(pair: Pair, start: int, rows: int) -> Tensor:
    """int64 [L, T]; every layer counts from another number, as layers with summaries do."""
    layers = torch.arange(pair.checkpoint.config.decoder.layers)[:, None]
    return 5 * layers + torch.arange(start, start + rows)


def sample_rows(pair: Pair, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(rows, pair.checkpoint.config.decoder.embedding_width, generator=generator)


@torch.no_grad()
def test_decoder_equals_transformers(pair: Pair) -> None:
    rows = sample_rows(pair, 40)
    expected = pair.original(inputs_embeds=rows[None])
    same = torch.arange(40).expand(pair.checkpoint.config.decoder.layers, 40)
    logits, _, present = forward(pair, rows, same, [0] * 40, None)
    assert error(logits, expected.logits[0]) <= TOLERANCE
    for layer, cache in enumerate(expected.past_key_values.layers):
        assert error(present[2 * layer], cache.keys[0].transpose(0, 1)) <= TOLERANCE
        assert error(present[2 * layer + 1], cache.values[0].transpose(0, 1)) <= TOLERANCE


@torch.no_grad()
def test_asked_rows_only(pair: Pair) -> None:
    rows = sample_rows(pair, 9)
    logits, probes, present = forward(pair, rows, positions(pair, 0, 9), [0] * 9, None)
    some = pair.decoder(
        rows,
        positions(pair, 0, 9),
        torch.zeros(9, dtype=torch.int64),
        torch.tensor([8, 2]),
        torch.tensor([4]),
        torch.tensor([False]),
        nothing(pair),
    )
    assert error(some[0], logits[[8, 2]]) <= TOLERANCE
    assert torch.equal(some[1], probes[:, [4]])
    assert all(torch.equal(a, b) for a, b in zip(some[2:], present, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 7, 23])
def test_chunks_equal_one_pass(pair: Pair, cut: int) -> None:
    rows = sample_rows(pair, 24)
    whole, _, cache = forward(pair, rows, positions(pair, 0, 24), [0] * 24, None)
    first, _, past = forward(pair, rows[:cut], positions(pair, 0, cut), [0] * cut, None)
    rest = 24 - cut
    second, _, new = forward(pair, rows[cut:], positions(pair, cut, rest), [0] * rest, past)
    assert error(torch.cat((first, second)), whole) <= TOLERANCE
    for before, after, expected in zip(past, new, cache, strict=True):
        assert error(torch.cat((before, after)), expected) <= TOLERANCE


@torch.no_grad()
def test_layers_may_hold_unequal_caches(pair: Pair) -> None:
    """Two probes ride behind a chunk on caches of 1 to 10 rows: the same as three passes."""
    spec = pair.checkpoint.config.decoder
    generator = torch.Generator().manual_seed(5)
    past = [
        torch.randn(index // 2 % 4 * 3 + 1, spec.kv_heads, spec.head_size, generator=generator)
        for index in range(2 * spec.layers)
    ]
    rows = sample_rows(pair, 8 + 3 + 4)
    at = torch.cat([positions(pair, s, n) for s, n in ((0, 8), (8, 3), (8, 4))], dim=1)
    ids = [0] * 8 + [1] * 3 + [2] * 4
    logits, probes, present = forward(pair, rows, at, ids, past)
    chunk, _, new = forward(pair, rows[:8], at[:, :8], [0] * 8, past)
    grown = [torch.cat(parts) for parts in zip(past, new, strict=True)]
    one = forward(pair, rows[8:11], at[:, 8:11], [1] * 3, grown)
    two = forward(pair, rows[11:], at[:, 11:], [0] * 4, grown)
    assert error(logits, torch.cat((chunk, one[0], two[0]))) <= TOLERANCE
    assert error(probes[:, 8:], torch.cat((one[1], two[1]), dim=1)) <= TOLERANCE
    for riding, *apart in zip(present, new, one[2], two[2], strict=True):
        assert error(riding, torch.cat(apart)) <= TOLERANCE
    # The test sees a mask that is not there: as one stream, the second probe sees the first.
    mixed = forward(pair, rows, at, [0] * 15, past)[0]
    assert error(mixed[11:], logits[11:]) > 100 * TOLERANCE


def test_segment_mask() -> None:
    visible = segment_mask(torch.tensor([0, 0, 1, 1, 2])) == 0
    assert visible.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_rotations_add_up() -> None:
    rows = torch.randn(6, 2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    frequencies = inverse_frequencies(16, 10000.0)

    def at(position: int, start: Tensor = rows) -> Tensor:
        return rotate(start, *rotations(torch.full((6,), position), frequencies))

    assert torch.equal(at(0), rows)
    assert error(at(5, at(7)), at(12)) <= 1e-6
    assert error(at(-12, at(12)), rows) <= 1e-6
    assert error(at(9).square().sum(-1), rows.square().sum(-1)) <= 1e-6


@torch.no_grad()
def test_embedding_probe_equals_transformers(pair: Pair) -> None:
    spec = pair.checkpoint.config.decoder
    probe = EmbeddingProbe(spec, pair.checkpoint.weights, torch.float32)
    rows, at = sample_rows(pair, 6), positions(pair, 11, 6)
    queries, keys = probe(rows, at)
    text = pair.original.model.language_model
    for layer, original in enumerate(text.layers):
        normed = original.input_layernorm(rows)[None]
        cos, sin = text.rotary_emb(normed, at[layer][None])
        for measured, linear in (
            (queries[layer], original.self_attn.q_proj),
            (keys[layer], original.self_attn.k_proj),
        ):
            plain = linear(normed).view(6, -1, spec.head_size)
            half = spec.head_size // 2
            swapped = torch.cat((-plain[..., half:], plain[..., :half]), dim=-1)
            expected = plain * cos[0][:, None] + swapped * sin[0][:, None]
            assert error(measured, expected) <= TOLERANCE


@torch.no_grad()
def test_vision_equals_transformers(pair: Pair) -> None:
    """From bytes: pixels by transformers' own processor, features by its own model."""
    config = pair.checkpoint.config
    vision, variant = config.vision, config.vision_variant
    assert vision is not None and variant is not None
    frames = np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    processor = LlavaOnevisionImageProcessorPil.from_pretrained(pair.checkpoint.folder)
    # The first of an image's patches is the image itself, resized: here, to its own size.
    patches = [
        processor(Image.fromarray(frame), return_tensors="pt")["pixel_values"][0, 0]
        for frame in frames
    ]
    features = pair.original.get_video_features(torch.stack(patches)[None]).pooler_output
    # The last row is the row-end token, which the graph does not emit.
    expected = features[0, :-1]
    width = config.decoder.embedding_width
    module = Vision(vision, width, variant, pair.checkpoint.weights, torch.float32)
    assert error(module(torch.from_numpy(frames)), expected) <= TOLERANCE


def test_pooling_matrix_interpolates(pair: Pair) -> None:
    vision = pair.checkpoint.config.vision
    assert vision is not None
    rows = torch.randn(
        vision.patch_side**2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float32
    )
    image = rows.T.reshape(1, 5, vision.patch_side, vision.patch_side)
    size = (vision.pooled_side, vision.pooled_side)
    pooled = torch.nn.functional.interpolate(image, size=size, mode="bilinear")
    expected = pooled.reshape(5, vision.tokens_per_frame).T
    assert error(pooling_matrix(vision) @ rows, expected) <= 1e-6
