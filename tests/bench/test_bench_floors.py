"""Floors, against arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hermes_edge.bench.figures import RateFigures
from hermes_edge.bench.floors import decoder_floor, vision_floor
from hermes_edge.spec import DecoderSpec, VisionSpec

DECODER = DecoderSpec(
    layers=2,
    embedding_width=8,
    query_heads=2,
    kv_heads=1,
    head_size=4,
    mlp_width=16,
    vocabulary=32,
    max_positions=128,
    rope_theta=1e4,
    rms_norm_eps=1e-6,
    tied_embeddings=True,
)
# Per layer: q 64, k and v 64, biases 16, o 64, MLP 384, norms 16; then last norm and head.
WEIGHTS = 2 * (64 + 64 + 16 + 64 + 384 + 16) + 8 + 256


def test_one_token_is_bound_by_reads() -> None:
    rates = RateFigures(sgemm_gflop_per_s=1e9, read_gbyte_per_s=1.0)
    floor = decoder_floor(DECODER, "fp32", rates, new_tokens=1, rows=10)
    kv_bytes = 10 * 2 * 2 * 4 * 4
    assert floor.kind == "reads"
    assert floor.ms == pytest.approx((4 * WEIGHTS + kv_bytes) / 1e6)


def test_half_precision_reads_half_as_much() -> None:
    rates = RateFigures(sgemm_gflop_per_s=1e9, read_gbyte_per_s=1.0)
    whole = decoder_floor(DECODER, "fp32", rates, new_tokens=1, rows=10)
    half = decoder_floor(DECODER, "fp16", rates, new_tokens=1, rows=10)
    assert half.ms == pytest.approx(whole.ms / 2)


@pytest.mark.parametrize("rows", [0, 10])
def test_many_tokens_are_bound_by_arithmetic(rows: int) -> None:
    rates = RateFigures(sgemm_gflop_per_s=1.0, read_gbyte_per_s=1e9)
    floor = decoder_floor(DECODER, "fp32", rates, new_tokens=20, rows=rows)
    # Query times key and weight times value, 2 heads of 4, over the rows that are seen on average.
    attention = 2 * 2 * 2 * 4 * (rows + 10)
    flops = 20 * (2 * (WEIGHTS - 256) + 2 * attention) + 2 * 256
    assert floor.kind == "flops"
    assert floor.ms == pytest.approx(flops / 1e6)


def test_vision_counts_only_the_layers_in_use() -> None:
    vision = VisionSpec(
        image_size=8,
        patch_size=2,
        width=4,
        mlp_width=8,
        layers=3,
        heads=2,
        layer_norm_eps=1e-6,
        feature_layer=-1,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        rescale_factor=1 / 255,
    )
    rates = RateFigures(sgemm_gflop_per_s=1.0, read_gbyte_per_s=1e9)
    all_layers = vision_floor(vision, "fp32", rates)
    two_layers = vision_floor(replace(vision, feature_layer=-2), "fp32", rates)
    layer = (4 * 16 + 2 * 32 + 9 * 4 + 8) * 2 * 16 + 4 * 16**2 * 4
    assert all_layers.ms - two_layers.ms == pytest.approx(layer / 1e6)
