"""The vision tower as it is exported: SigLIP, projector and pooling, from bytes to visual tokens.

    frames uint8 [F, H, W, 3]  ->  patches [F, side^2, width]  ->  visual tokens [F * N, E]

As in transformers' LLaVA-OneVision for videos: hidden state ``feature_layer`` (the last one is
taken before the tower's final norm), all patches, bilinear pooling; no row-end token, which the
released streaming code does not use either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hermes_edge.export.activations import Gelu, finer, gelu
from hermes_edge.export.weights import Weights
from hermes_edge.spec import VisionSpec

_TOWER = "vision_tower."
_PROJECTOR = "multi_modal_projector."
_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class VisionVariant:
    """What the tower's graph needs to know and the runtime does not."""

    tower_activation: Gelu
    projector_activation: Gelu
    projector_bias: bool


def vision_tensors(
    spec: VisionSpec, embedding_width: int, variant: VisionVariant
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor that a checkpoint must hold for the used layers."""
    w, mlp, patch = spec.width, spec.mlp_width, spec.patch_size
    tensors: dict[str, tuple[int, ...]] = {
        _TOWER + "embeddings.patch_embedding.weight": (w, _CHANNELS, patch, patch),
        _TOWER + "embeddings.patch_embedding.bias": (w,),
        _TOWER + "embeddings.position_embedding.weight": (spec.patch_side**2, w),
        _PROJECTOR + "linear_1.weight": (embedding_width, w),
        _PROJECTOR + "linear_2.weight": (embedding_width, embedding_width),
    }
    if variant.projector_bias:
        tensors[_PROJECTOR + "linear_1.bias"] = (embedding_width,)
        tensors[_PROJECTOR + "linear_2.bias"] = (embedding_width,)
    for layer in range(spec.used_layers):
        shapes: Mapping[str, tuple[int, ...]] = {
            **{f"layer_norm{i}.{part}": (w,) for i in (1, 2) for part in ("weight", "bias")},
            **{f"self_attn.{name}.weight": (w, w) for name in _ATTENTION},
            **{f"self_attn.{name}.bias": (w,) for name in _ATTENTION},
            "mlp.fc1.weight": (mlp, w),
            "mlp.fc1.bias": (mlp,),
            "mlp.fc2.weight": (w, mlp),
            "mlp.fc2.bias": (w,),
        }
        tensors |= {_layer_prefix(layer) + name: shape for name, shape in shapes.items()}
    return tensors


_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


def _layer_prefix(layer: int) -> str:
    return f"{_TOWER}encoder.layers.{layer}."


class Linear(nn.Module):
    """One or several linear layers side by side; the weight is stored [in, out]."""

    def __init__(self, weights: Weights, names: list[str], dtype: torch.dtype, bias: bool) -> None:
        super().__init__()
        matrix = torch.cat([weights.load(f"{name}.weight", dtype) for name in names])
        self.weight = nn.Buffer(matrix.T.contiguous())
        parts = [weights.load(f"{name}.bias", dtype) for name in names] if bias else []
        self.bias = nn.Buffer(torch.cat(parts)) if bias else None

    def forward(self, rows: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        product: Tensor = rows @ self.weight
        return product if self.bias is None else product + self.bias


class LayerNorm(nn.Module):
    """Layer norm in fp32; the caller casts its result."""

    def __init__(self, weights: Weights, name: str, eps: float) -> None:
        super().__init__()
        self.weight = nn.Buffer(weights.load(f"{name}.weight", torch.float32))
        self.bias = nn.Buffer(weights.load(f"{name}.bias", torch.float32))
        self.eps = eps

    def forward(self, rows: Tensor) -> Tensor:
        """fp32 [..., width] to fp32 [..., width]."""
        return F.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.eps)


class VisionLayer(nn.Module):
    """One encoder layer on fp32 rows [F, patches, width]."""

    def __init__(
        self,
        spec: VisionSpec,
        variant: VisionVariant,
        weights: Weights,
        layer: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        prefix = _layer_prefix(layer)
        self.heads = spec.heads
        self.dtype = dtype
        self.activation = variant.tower_activation
        self.norm = LayerNorm(weights, prefix + "layer_norm1", spec.layer_norm_eps)
        self.mlp_norm = LayerNorm(weights, prefix + "layer_norm2", spec.layer_norm_eps)
        projections = [f"{prefix}self_attn.{name}" for name in _ATTENTION]
        self.qkv = Linear(weights, projections[:3], dtype, bias=True)
        self.out = Linear(weights, projections[3:], dtype, bias=True)
        self.wide = Linear(weights, [prefix + "mlp.fc1"], dtype, bias=True)
        self.narrow = Linear(weights, [prefix + "mlp.fc2"], dtype, bias=True)

    def forward(self, hidden: Tensor) -> Tensor:
        """fp32 [F, patches, width] to the same."""
        hidden = hidden + self._attention(self.norm(hidden).to(self.dtype)).to(torch.float32)
        wide = gelu(self.wide(self.mlp_norm(hidden).to(self.dtype)), self.activation)
        narrow: Tensor = self.narrow(wide)
        return hidden + narrow.to(torch.float32)

    def _attention(self, rows: Tensor) -> Tensor:
        patches, width = rows.shape[1:]
        size = width // self.heads
        heads = self.qkv(rows).view(-1, patches, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)
        scaled = (queries.to(torch.float32) * (1.0 / math.sqrt(size))).to(rows.dtype)
        scores = scaled @ keys.transpose(-1, -2)
        weights = scores.to(torch.float32).softmax(dim=-1).to(rows.dtype)
        mixed: Tensor = self.out((weights @ values).transpose(1, 2).reshape(-1, patches, width))
        return mixed


def pooling_matrix(spec: VisionSpec) -> Tensor:
    """fp32 [N, patches]: bilinear interpolation to ``pooled_side``, written as a matrix.

    It is what interpolation makes of every unit image, hence equal to interpolating.
    """
    patches = spec.patch_side**2
    units = torch.eye(patches).view(patches, 1, spec.patch_side, spec.patch_side)
    pooled = F.interpolate(units, size=(spec.pooled_side, spec.pooled_side), mode="bilinear")
    return pooled.view(patches, spec.tokens_per_frame).T.contiguous()


class Vision(nn.Module):
    """Frames to visual tokens; rescaling, normalisation and channel order are inside."""

    def __init__(
        self,
        spec: VisionSpec,
        embedding_width: int,
        variant: VisionVariant,
        weights: Weights,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        embeddings = _TOWER + "embeddings."
        self.spec = spec
        self.embedding_width = embedding_width
        self.dtype = dtype
        self.activation = variant.projector_activation
        self.mean = nn.Buffer(torch.tensor(spec.image_mean, dtype=torch.float32))
        self.std = nn.Buffer(torch.tensor(spec.image_std, dtype=torch.float32))
        patch = embeddings + "patch_embedding."
        self.patch = nn.Buffer(weights.load(patch + "weight", finer(dtype)))
        self.patch_bias = nn.Buffer(weights.load(patch + "bias", finer(dtype)))
        position = weights.load(embeddings + "position_embedding.weight", torch.float32)
        self.position = nn.Buffer(position)
        self.layers = nn.ModuleList(
            VisionLayer(spec, variant, weights, layer, dtype) for layer in range(spec.used_layers)
        )
        bias = variant.projector_bias
        self.project_in = Linear(weights, [_PROJECTOR + "linear_1"], dtype, bias)
        self.project_out = Linear(weights, [_PROJECTOR + "linear_2"], dtype, bias)
        self.pool = nn.Buffer(pooling_matrix(spec).to(finer(dtype)))

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [F, H, W, 3] to [F * N, E]."""
        pixels = frames.to(torch.float32) * self.spec.rescale_factor
        pixels = ((pixels - self.mean) / self.std).permute(0, 3, 1, 2).to(self.patch.dtype)
        patches = F.conv2d(pixels, self.patch, self.patch_bias, stride=self.spec.patch_size)
        hidden = patches.flatten(2).transpose(1, 2).to(torch.float32) + self.position
        for layer in self.layers:
            hidden = layer(hidden)
        tokens = gelu(self.project_in(hidden.to(self.dtype)), self.activation)
        pooled: Tensor = self.pool @ self.project_out(tokens).to(self.pool.dtype)
        return pooled.reshape(-1, self.embedding_width).to(self.dtype)
