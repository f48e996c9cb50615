"""The decoder as it is exported: Qwen2 with explicit caches, written for one pass over its rows.

    inputs_embeds [T, E]       position_ids [L, T]      segment_ids [T]
    past keys, values [S_i, Hkv, D] of layer i, keys rotated

What differs from the original in form, not in result: one matrix for query, key and value; weights
stored [in, out]; all layers' rotations at once; no key or value is repeated for the query heads
that share it; behind the last layer's keys and values, only rows whose logits are asked for go on.

Rows between layers stay fp32 in either precision: adding in half precision loses, over 24 layers,
more than it saves on [T, E] elements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hermes_edge.export.activations import gated
from hermes_edge.export.attention import attend
from hermes_edge.export.rotary import inverse_frequencies, rotate, rotations
from hermes_edge.export.weights import Weights
from hermes_edge.spec import DecoderSpec

EMBEDDINGS = "language_model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_LAST_NORM = "language_model.norm.weight"


def decoder_tensors(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor that a checkpoint must hold for the decoder."""
    e, mlp = spec.embedding_width, spec.mlp_width
    q, kv = spec.query_heads * spec.head_size, spec.kv_heads * spec.head_size
    tensors: dict[str, tuple[int, ...]] = {EMBEDDINGS: (spec.vocabulary, e), _LAST_NORM: (e,)}
    if not spec.tied_embeddings:
        tensors[_HEAD] = (spec.vocabulary, e)
    for layer in range(spec.layers):
        shapes: Mapping[str, tuple[int, ...]] = {
            "input_layernorm.weight": (e,),
            "post_attention_layernorm.weight": (e,),
            "self_attn.q_proj.weight": (q, e),
            "self_attn.k_proj.weight": (kv, e),
            "self_attn.v_proj.weight": (kv, e),
            "self_attn.q_proj.bias": (q,),
            "self_attn.k_proj.bias": (kv,),
            "self_attn.v_proj.bias": (kv,),
            "self_attn.o_proj.weight": (e, q),
            "mlp.gate_proj.weight": (mlp, e),
            "mlp.up_proj.weight": (mlp, e),
            "mlp.down_proj.weight": (e, mlp),
        }
        tensors |= {layer_prefix(layer) + name: shape for name, shape in shapes.items()}
    return tensors


def layer_prefix(layer: int) -> str:
    """What the names of a layer's tensors begin with."""
    return f"language_model.layers.{layer}."


def segment_mask(segment_ids: Tensor) -> Tensor:
    """fp32 [T, T]: 0 where j <= i and j is of segment 0 or of i's own segment, else -inf."""
    rows = torch.arange(segment_ids.shape[0])
    causal = rows[None, :] <= rows[:, None]
    stream = (segment_ids == 0)[None, :]
    same = segment_ids[None, :] == segment_ids[:, None]
    visible = causal & (stream | same)
    return torch.zeros(1).where(visible, torch.full((1,), -math.inf))


class RmsNorm(nn.Module):
    """Root-mean-square norm in fp32; the caller casts its result."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Buffer(weight.to(torch.float32))
        self.eps = eps

    def forward(self, rows: Tensor) -> Tensor:
        """fp32 [T, E] to fp32 [T, E]."""
        # Divided, not multiplied by a reciprocal: ONNX Runtime fuses this form into one operator.
        mean_square = rows.square().mean(-1, keepdim=True)
        return rows / (mean_square + self.eps).sqrt() * self.weight


class DecoderLayer(nn.Module):
    """Attention and feed-forward of one layer, with its fused weights."""

    def __init__(self, spec: DecoderSpec, weights: Weights, layer: int, dtype: torch.dtype) -> None:
        super().__init__()

        def load(name: str, as_dtype: torch.dtype = dtype) -> Tensor:
            return weights.load(layer_prefix(layer) + name, as_dtype)

        def fused(*names: str) -> nn.Buffer:
            return nn.Buffer(torch.cat([load(name) for name in names]).T.contiguous())

        projections = [f"self_attn.{name}_proj" for name in "qkv"]
        self.spec = spec
        self.dtype = dtype
        self.norm = RmsNorm(load("input_layernorm.weight", torch.float32), spec.rms_norm_eps)
        self.mlp_norm = RmsNorm(
            load("post_attention_layernorm.weight", torch.float32), spec.rms_norm_eps
        )
        self.qkv = fused(*(f"{name}.weight" for name in projections))
        self.qkv_bias = nn.Buffer(torch.cat([load(f"{name}.bias") for name in projections]))
        self.out = fused("self_attn.o_proj.weight")
        self.gate = fused("mlp.gate_proj.weight")
        self.up = fused("mlp.up_proj.weight")
        self.down = fused("mlp.down_proj.weight")

    def project(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [T, Hq, D], rotated keys and values [T, Hkv, D] of fp32 rows [T, E]."""
        spec = self.spec
        rows = self.norm(hidden).to(self.dtype) @ self.qkv + self.qkv_bias
        heads = rows.view(-1, spec.query_heads + 2 * spec.kv_heads, spec.head_size)
        # Queries and keys stand side by side: one rotation serves both.
        turned = rotate(heads[:, : spec.query_heads + spec.kv_heads], cos, sin)
        queries, keys = turned[:, : spec.query_heads], turned[:, spec.query_heads :]
        return queries, keys, heads[:, spec.query_heads + spec.kv_heads :]

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """fp32 [T, E] to fp32 [T, E]: down(silu(gate) * up)."""
        rows = self.mlp_norm(hidden).to(self.dtype)
        product: Tensor = gated(rows @ self.gate, rows @ self.up) @ self.down
        return product.to(torch.float32)


class Decoder(nn.Module):
    """All layers with explicit caches; inputs and outputs in the order of the contract."""

    def __init__(
        self, spec: DecoderSpec, weights: Weights, dtype: torch.dtype, *, static: bool = False
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.static = static
        self.inv_freq = nn.Buffer(inverse_frequencies(spec.head_size, spec.rope_theta))
        self.layers = nn.ModuleList(
            DecoderLayer(spec, weights, layer, dtype) for layer in range(spec.layers)
        )
        self.norm = RmsNorm(weights.load(_LAST_NORM, torch.float32), spec.rms_norm_eps)
        head = EMBEDDINGS if spec.tied_embeddings else _HEAD
        self.head = nn.Buffer(weights.load(head, dtype).T.contiguous())

    def forward(
        self,
        inputs_embeds: Tensor,
        position_ids: Tensor,
        segment_ids: Tensor,
        logit_rows: Tensor,
        probe_rows: Tensor,
        past_seen: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """Logits [R, V], probe queries [L, P, Hq, D], then every layer's new keys and values.

        Args:
            past_seen: ``past_visible``, or ``past_rows`` of a decoder for static decoding.
            past: key and value of layer 0, of layer 1, and so on, each [S_i, Hkv, D].
        """
        block_mask = segment_mask(segment_ids)
        cos, sin = rotations(position_ids, self.inv_freq)
        hidden = inputs_embeds.to(torch.float32)
        # One row more than asked: ONNX Runtime before 1.32 cannot take the maximum of no rows.
        last_rows = torch.cat((logit_rows, torch.zeros(1, dtype=torch.int64)))
        probes: list[Tensor] = []
        present: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            queries, keys, values = layer.project(hidden, cos[index], sin[index])
            probes.append(queries.index_select(0, probe_rows))
            present += [keys, values]
            if index == len(self.layers) - 1:
                queries, hidden, block_mask = (
                    rows.index_select(0, last_rows) for rows in (queries, hidden, block_mask)
                )
            past_keys, past_values = past[2 * index : 2 * index + 2]
            visible, mask = past_seen, None
            if self.static:
                rows = past_seen[index : index + 1]
                visible, mask = rows > 0, torch.arange(past_keys.shape[0]) < rows
            mixed = attend(queries, past_keys, past_values, visible, keys, values, block_mask, mask)
            hidden = hidden + (mixed @ layer.out).to(torch.float32)
            hidden = hidden + layer.feed_forward(hidden)
        last = self.norm(hidden[:-1]).to(self.dtype)
        return ((last @ self.head).to(torch.float32), torch.stack(probes), *present)


class EmbeddingProbe(nn.Module):
    """Queries and keys of raw token embeddings, layer by layer, as in the released code.

    No row passes through a layer: each layer's norm and projections see the embeddings themselves.
    """

    def __init__(self, spec: DecoderSpec, weights: Weights, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec = spec
        self.dtype = dtype
        self.inv_freq = nn.Buffer(inverse_frequencies(spec.head_size, spec.rope_theta))
        self.norms = nn.ModuleList()
        matrices: list[Tensor] = []
        biases: list[Tensor] = []
        for layer in range(spec.layers):
            prefix = layer_prefix(layer)
            norm = weights.load(prefix + "input_layernorm.weight", torch.float32)
            self.norms.append(RmsNorm(norm, spec.rms_norm_eps))
            parts = [f"{prefix}self_attn.{name}_proj" for name in "qk"]
            matrices.append(torch.cat([weights.load(f"{part}.weight", dtype) for part in parts]).T)
            biases.append(torch.cat([weights.load(f"{part}.bias", dtype) for part in parts]))
        self.matrices = nn.Buffer(torch.stack(matrices))
        self.biases = nn.Buffer(torch.stack(biases)[:, None])

    def forward(self, inputs_embeds: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [L, P, Hq, D] and keys [L, P, Hkv, D] of [P, E], rotated by [L, P]."""
        spec = self.spec
        rows = inputs_embeds.to(torch.float32)
        normed = torch.stack([norm(rows).to(self.dtype) for norm in self.norms])
        heads = normed @ self.matrices + self.biases
        heads = heads.view(spec.layers, -1, spec.query_heads + spec.kv_heads, spec.head_size)
        turned = rotate(heads, *rotations(position_ids, self.inv_freq))
        return turned[:, :, : spec.query_heads], turned[:, :, spec.query_heads :]
