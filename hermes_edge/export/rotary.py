"""Rotary positions, half-split: the first half of a head turns with the second.

    angles   fp32 [..., D/2] = positions * inverse frequencies
    rows     [..., H, D], H any number of heads

Everything is computed in fp32, whatever the precision of the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_frequencies(head_size: int, theta: float) -> Tensor:
    """fp32 [D/2]: radians per position of each pair."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32) / head_size
    return 1.0 / theta**exponents


def rotations(positions: Tensor, inv_freq: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines, fp32 [..., 1, D], of int64 positions [...]; 1 spans the heads."""
    angles = positions.to(torch.float32)[..., None, None] * inv_freq
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rows [..., H, D] turned by their angles, in the precision of ``rows``."""
    wide = rows.to(torch.float32)
    first, second = torch.split(wide, rows.shape[-1] // 2, dim=-1)
    return (wide * cos + torch.cat((second, first), dim=-1) * sin).to(rows.dtype)
