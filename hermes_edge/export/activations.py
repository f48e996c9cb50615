"""Activation functions of decoder and tower: in the precision of their rows, in fp32 for bf16."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Gelu = Literal["gelu", "gelu_pytorch_tanh"]


def finer(dtype: torch.dtype) -> torch.dtype:
    """What is computed where ``dtype`` will not do: fp32 in place of bf16.

    ai.onnx has Conv in bf16 from opset 22 on, ONNX Runtime's CUDA provider Gelu from 1.23 on (pull
    request 25765), and bf16 keeps two to three decimal digits.
    """
    return torch.float32 if dtype is torch.bfloat16 else dtype


def gelu(rows: Tensor, kind: Gelu) -> Tensor:
    """Of the same shape and precision as ``rows``."""
    approximate = "tanh" if kind == "gelu_pytorch_tanh" else "none"
    return F.gelu(rows.to(finer(rows.dtype)), approximate=approximate).to(rows.dtype)


def gated(gate: Tensor, rows: Tensor) -> Tensor:
    """silu(gate) * rows, of their precision."""
    wide = finer(rows.dtype)
    return (F.silu(gate.to(wide)) * rows.to(wide)).to(rows.dtype)
