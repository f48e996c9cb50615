"""An opened checkpoint: its folder, its configuration, and weights known to fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hermes_edge.export.config import ModelConfig, read_config
from hermes_edge.export.decoder import decoder_tensors
from hermes_edge.export.hub import resolve_source
from hermes_edge.export.vision import vision_tensors
from hermes_edge.export.weights import Weights
from hermes_edge.spec import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What every stage of an export reads from; nothing is loaded before it is asked for."""

    folder: Path
    model_id: str
    config: ModelConfig
    weights: Weights

    @classmethod
    def open(cls, source: str | Path) -> Checkpoint:
        """Open a folder or a hub id; check names and shapes of every tensor that is needed.

        Raises:
            CheckpointError: no such checkpoint, an unsupported model, damaged or missing files,
                or tensors that are missing or of another shape (all of them are listed).
        """
        folder, model_id = resolve_source(source)
        config = read_config(folder)
        weights = Weights.open(folder)
        weights.check(required_tensors(config))
        return cls(folder, model_id, config, weights)


def required_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors that an export reads."""
    tensors = decoder_tensors(config.decoder)
    if config.vision is not None and config.vision_variant is not None:
        width = config.decoder.embedding_width
        tensors |= vision_tensors(config.vision, width, config.vision_variant)
    return tensors
