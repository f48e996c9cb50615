"""The least time that a stage could take: its arithmetic, or the bytes that it must read."""

from __future__ import annotations

from hermes_edge.bench.figures import Floor, RateFigures
from hermes_edge.spec import PRECISION_BYTES, DecoderSpec, Precision, Quantization, VisionSpec


def decoder_floor(
    decoder: DecoderSpec,
    precision: Precision,
    rates: RateFigures,
    new_tokens: int,
    rows: int,
    quantization: Quantization | None = None,
) -> Floor:
    """One forward of T new tokens on S cached rows: weights and cache are read once."""
    # Causal: on average a new row sees half of the new rows, where forward_flops counts them all.
    flops = decoder.forward_flops(new_tokens, rows - new_tokens // 2)
    nbytes = decoder.weight_bytes(precision, quantization)
    nbytes += rows * decoder.kv_bytes_per_token(precision)
    return _floor(flops, nbytes, rates)


def vision_floor(vision: VisionSpec, precision: Precision, rates: RateFigures) -> Floor:
    """One frame through the tower; the projector, under one per cent, is left out."""
    patches = vision.patch_side**2
    attention = 4 * patches**2 * vision.width * vision.used_layers
    flops = 2 * patches * vision.weight_count() + attention
    return _floor(flops, vision.weight_count() * PRECISION_BYTES[precision], rates)


def _floor(flops: int, nbytes: int, rates: RateFigures) -> Floor:
    arithmetic_ms = flops / rates.sgemm_gflop_per_s / 1e6
    reads_ms = nbytes / rates.read_gbyte_per_s / 1e6
    if arithmetic_ms >= reads_ms:
        return Floor(arithmetic_ms, "flops")
    return Floor(reads_ms, "reads")
