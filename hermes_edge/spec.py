"""Geometry of a model and of its memory, with the arithmetic of bytes and FLOPs.

Axes: L layers, T new tokens, S cached rows of a layer, P probe rows, Hq/Hkv query and key-value
heads, D head size, E embedding width, V vocabulary, F frames, N tokens per frame.

Nothing here imports more than the standard library: the same numbers serve the exporter, the
allocation of the slabs, error messages and the benchmark's floors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "bf16"]

PRECISION_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
PRECISION_DTYPE: dict[Precision, Literal["float32", "float16", "bfloat16"]] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}

WEIGHT_BLOCKS = (32, 128)

# TensorRT requires the address of every bound tensor to be a multiple of this.
ADDRESS_ALIGNMENT_BYTES = 256


@dataclass(frozen=True, slots=True)
class Quantization:
    """Weights of matrices [in, out] as signed integers times positive scales; nothing else.

    Attributes:
        bits: 8, or 4, two to a byte.
        block: inputs that share a scale, one of ``WEIGHT_BLOCKS``; None: a whole column does.
    """

    bits: Literal[8, 4]
    block: int | None

    def __str__(self) -> str:
        return f"int{self.bits}" + (f", blocks of {self.block}" if self.block is not None else "")

    def divides(self, decoder: DecoderSpec) -> bool:
        """Whether every matrix is whole blocks."""
        return all(inputs % (self.block or 1) == 0 for inputs, _ in decoder.matrices())

    def matrix_bytes(self, inputs: int, outputs: int, precision: Precision) -> int:
        """Of the integers and their scales."""
        scales = outputs * (inputs // self.block if self.block else 1)
        return inputs * outputs * self.bits // 8 + scales * PRECISION_BYTES[precision]


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """A Qwen2-style decoder: RMSNorm, rotary positions (half-split), grouped-query attention."""

    layers: int
    embedding_width: int
    query_heads: int
    kv_heads: int
    head_size: int
    mlp_width: int
    vocabulary: int
    max_positions: int
    rope_theta: float
    rms_norm_eps: float
    tied_embeddings: bool

    def weight_count(self) -> int:
        """Parameters that the decoder graph holds: all layers, last norm and output head."""
        e, q, kv = (
            self.embedding_width,
            self.query_heads * self.head_size,
            self.kv_heads * self.head_size,
        )
        attention = e * (q + 2 * kv) + (q + 2 * kv) + q * e
        mlp = 3 * e * self.mlp_width
        return self.layers * (attention + mlp + 2 * e) + e + e * self.vocabulary

    def matrices(self) -> list[tuple[int, int]]:
        """Inputs and outputs of every weight matrix: a layer's five, and the output head."""
        e, q, kv = (
            self.embedding_width,
            self.query_heads * self.head_size,
            self.kv_heads * self.head_size,
        )
        layer = [(e, q + 2 * kv), (q, e), *[(e, self.mlp_width)] * 2, (self.mlp_width, e)]
        return [*layer * self.layers, (e, self.vocabulary)]

    def weight_bytes(self, precision: Precision, quantization: Quantization | None = None) -> int:
        """Of all that the decoder graph holds; norms and biases are never quantized."""
        size = PRECISION_BYTES[precision]
        dense = self.weight_count() * size
        if quantization is None:
            return dense
        return dense + sum(
            quantization.matrix_bytes(rows, columns, precision) - rows * columns * size
            for rows, columns in self.matrices()
        )

    def row_bytes(self, precision: Precision) -> int:
        """Bytes of one row (one token) of one slab: Hkv * D elements."""
        return self.kv_heads * self.head_size * PRECISION_BYTES[precision]

    def kv_bytes_per_token(self, precision: Precision) -> int:
        """Bytes that one token takes over all layers, keys and values."""
        return 2 * self.layers * self.row_bytes(precision)

    def forward_flops(self, new_tokens: int, cached_rows: int) -> int:
        """FLOPs of T new tokens on S cached rows, output head for one row."""
        e, v = self.embedding_width, self.vocabulary
        matmul = self.weight_count() - e * v
        attention = 2 * self.query_heads * self.head_size * (cached_rows + new_tokens)
        return 2 * (new_tokens * (matmul + self.layers * attention) + e * v)


@dataclass(frozen=True, slots=True)
class VisionSpec:
    """A SigLIP tower, a two-layer projector and bilinear pooling to ``pooled_side`` squared."""

    image_size: int
    patch_size: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    layer_norm_eps: float
    feature_layer: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    rescale_factor: float

    @property
    def patch_side(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def pooled_side(self) -> int:
        """Tokens along one side after pooling by two, rounded up (27 -> 14)."""
        return -(-self.patch_side // 2)

    @property
    def tokens_per_frame(self) -> int:
        """N: visual tokens of one frame."""
        return self.pooled_side**2

    @property
    def used_layers(self) -> int:
        """Encoder layers that the selected feature needs; ``feature_layer`` indexes L+1 states."""
        return self.feature_layer % (self.layers + 1)

    def weight_count(self) -> int:
        """Parameters of the tower up to the selected layer (projector excluded)."""
        layer = 4 * self.width**2 + 2 * self.width * self.mlp_width + 9 * self.width
        layer += self.mlp_width
        patches = 3 * self.patch_size**2 * self.width + self.width
        return self.used_layers * layer + patches + self.patch_side**2 * self.width


@dataclass(frozen=True, slots=True)
class MemorySpec:
    """How many rows a session's slabs hold, and how many bytes they are.

    ``capacity_rows`` is the number of rows of every slab: prefix, budget, one chunk not yet
    compacted, and the reserve that a probe or a question with its answer uses and gives back.
    """

    prefix_rows: int
    budget_rows: int
    chunk_rows: int
    reserve_rows: int

    @property
    def capacity_rows(self) -> int:
        """Rows of every slab."""
        return self.prefix_rows + self.budget_rows + self.chunk_rows + self.reserve_rows

    def slab_bytes(self, decoder: DecoderSpec, precision: Precision) -> int:
        """Bytes of all L layers' slabs, keys and values, without the spare pair."""
        return self.capacity_rows * decoder.kv_bytes_per_token(precision)

    def spare_bytes(self, decoder: DecoderSpec, precision: Precision) -> int:
        """Bytes of the spare pair of slabs that compaction gathers into."""
        return 2 * self.capacity_rows * decoder.row_bytes(precision)
