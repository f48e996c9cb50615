"""The graphs without weights: scoring the rows of a layer, and compacting them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hermes_edge.export.attention import group_heads, masked, scores, share_of, softmax
from hermes_edge.export.rotary import inverse_frequencies, rotate, rotations
from hermes_edge.spec import DecoderSpec


class Score(nn.Module):
    """Attention of a probe to a layer's rows, mean over heads and probe rows (paper, equation of
    A; the released code takes the softmax in fp32 over all keys, then the slice of the memory).
    """

    def forward(self, queries: Tensor, keys: Tensor, probe_keys: Tensor, visible: Tensor) -> Tensor:
        """Scores fp32 [S].

        Args:
            queries: [P, Hq, D], rotated.
            keys: [S, Hkv, D], rotated.
            probe_keys: [P, Hkv, D], rotated; they take their share of the softmax.
            visible: bool [P, P], whether probe row i sees probe row j.
        """
        grouped = group_heads(queries, keys.shape[1])
        mask = torch.zeros(1).where(visible, torch.full((1,), -math.inf))
        memory, memory_log_sum = softmax(scores(grouped, keys))
        _, probe_log_sum = softmax(masked(scores(grouped, probe_keys), mask))
        # The mean as a product: weights are never scaled and summed element by element.
        share = share_of(memory_log_sum, probe_log_sum).transpose(1, 2)
        heads_and_rows = queries.shape[0] * queries.shape[1]
        return (share @ memory).sum(dim=(0, 1)) / heads_and_rows


class Compact(nn.Module):
    """Kept rows, keys turned to their new positions, and the summary of the folded ones."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.inv_freq = nn.Buffer(inverse_frequencies(spec.head_size, spec.rope_theta))

    def forward(
        self,
        keys: Tensor,
        values: Tensor,
        keep: Tensor,
        keep_delta: Tensor,
        fold: Tensor,
        fold_delta: Tensor,
        fold_weight: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """New keys and values, [K+1, Hkv, D] each; row K is the summary, zero with nothing to fold.

        Args:
            keys, values: [S, Hkv, D].
            keep, keep_delta: int64 [K], rows and what their positions change by; a delta of 0
                leaves a key bit-identical.
            fold, fold_delta: int64 [R], likewise.
            fold_weight: fp32 [R].
        """
        # Widened until they are chosen, which changes no bit: no backend has to choose in bf16.
        kept = keys.index_select(0, keep).to(torch.float32)
        turned = self._turned(kept, keep_delta)
        # A product with a sine of zero would turn -0.0 into 0.0. So would ONNX Runtime 1.32 with
        # ``!= 0`` here: it fuses the negation, and its Where keeps a zero's sign in the else branch
        # alone.
        kept = turned.where(keep_delta[:, None, None].abs() > 0, kept).to(keys.dtype)
        weight = fold_weight[:, None, None]
        folded = self._turned(keys.index_select(0, fold).to(torch.float32), fold_delta)
        key = (folded * weight).sum(dim=0, keepdim=True).to(keys.dtype)
        value = values.index_select(0, fold).to(torch.float32)
        value = (value * weight).sum(dim=0, keepdim=True).to(values.dtype)
        return torch.cat((kept, key)), torch.cat((values.index_select(0, keep), value))

    def _turned(self, rows: Tensor, delta: Tensor) -> Tensor:
        return rotate(rows, *rotations(delta, self.inv_freq))
