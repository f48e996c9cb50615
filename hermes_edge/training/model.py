"""hermes-tiny's geometry and tokenizer, and how it is written as a checkpoint.

transformers' own LLaVA-OneVision classes: SigLIP tower, projector, Qwen2 decoder; 64 x 64 pixels,
16 tokens a frame, 10 layers, 2 of 4 heads grouped, positions up to 2,048.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from hermes_edge.export.progress import quiet_transformers
from hermes_edge.export.random_checkpoint import (
    SPECIAL_TOKENS,
    save_tokenizer,
    write_processor,
)
from hermes_edge.memory.probes import GLOBAL_GUIDANCE, LOCAL_GUIDANCE
from hermes_edge.synthetic.questions import LETTERS, NOTHING
from hermes_edge.synthetic.world import COLOURS, THINGS
from hermes_edge.training.state import replacing

IMAGE_SIDE = 64
PATCH_SIDE = 8
MAX_POSITIONS = 2048
_VOCABULARY = 544

WORDS = (*THINGS, *COLOURS, NOTHING, "yes", "no")
"""Every answer in one word; each is one token, at the beginning of a text and within it."""

_TEXTS = (
    "You are a helpful assistant.",
    "system\n",
    "user \n",
    "assistant\n",
    LOCAL_GUIDANCE,
    GLOBAL_GUIDANCE,
    "What is it now? What colour is it now? What colour is the thing now? Did a thing appear?",
    "Did an eight appear? What colour was the thing? What came before the thing?",
    "What came first? How many times did a thing appear? Which came first, the one or the two?",
)


def make_tokenizer() -> Tokenizer:
    """A byte-level BPE in which every word of the synthetic questions is one token."""
    tokenizer = Tokenizer(models.BPE())
    # A word with the space before it, an option's letter in its brackets, or a run of signs.
    pattern = Regex(r" ?\([A-D]\)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [*WORDS, *LETTERS]
    tokenizer.train_from_iterator([*_TEXTS, *words, *(f"a {word}" for word in words)], trainer)
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Id of a token that is known to be there."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise RuntimeError(f"the tokenizer lacks {token!r}")
    return found


def make_model(tokenizer: Tokenizer, seed: int) -> LlavaOnevisionForConditionalGeneration:
    """The untrained model."""
    torch.manual_seed(seed)
    end, image, video = (
        token_id(tokenizer, f"<{name}>") for name in ("|im_end|", "image", "video")
    )
    config = LlavaOnevisionConfig(
        text_config={
            "model_type": "qwen2",
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 10,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": MAX_POSITIONS,
            "vocab_size": _VOCABULARY,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
            "eos_token_id": end,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIDE,
            "patch_size": PATCH_SIDE,
            "vision_use_head": False,
        },
        image_token_index=image,
        video_token_index=video,
        tie_word_embeddings=True,
    )
    config.eos_token_id = end
    model = LlavaOnevisionForConditionalGeneration(config)
    with torch.no_grad():
        table: Any = model.get_input_embeddings()
        table.weight.normal_(std=0.05)
        positions: Any = model.model.vision_tower.embeddings.position_embedding
        positions.weight.copy_(_plane_waves(IMAGE_SIDE // PATCH_SIDE, positions.embedding_dim))
        layers: Any = model.model.language_model.layers
        for layer in layers:
            for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
                projection.weight.mul_((2 * len(layers)) ** -0.5)
    return model


def _plane_waves(side: int, width: int) -> Tensor:
    """fp32 [side^2, width]: sines and cosines of rows and of columns.

    Neighbours then look alike from the first step on; from noise, shapes are learnt far later.
    """
    count = width // 4
    rates = math.pi / 2 * torch.linspace(0, 1, count).mul(-math.log(8.0)).exp()
    angles = torch.arange(side)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = line[:, None].expand(side, side, 2 * count)
    columns = line[None].expand(side, side, 2 * count)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width)


def visual_tokens(model: LlavaOnevisionForConditionalGeneration, frames: Tensor) -> Tensor:
    """uint8 [F, 64, 64, 3] to [F, N, E], as transformers makes them for a video."""
    pixels = frames.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
    # A video of one frame each, so that the row-end token, which streaming leaves out, comes last.
    features: Any = model.model.get_video_features(pixels[:, None])
    tokens: Tensor = features.pooler_output[:, :-1]
    return tokens


def save_checkpoint(
    folder: Path, model: LlavaOnevisionForConditionalGeneration, tokenizer: Tokenizer
) -> None:
    """Write weights, configuration, processor, tokenizer and chat template.

    Raises:
        StorageError: a file cannot be written; a checkpoint that is there stays as it is.
    """
    with replacing(folder) as beside, quiet_transformers():
        save_tokenizer(beside, tokenizer)
        write_processor(beside, IMAGE_SIDE, mean=(0.5, 0.5, 0.5))
        model.save_pretrained(beside)
