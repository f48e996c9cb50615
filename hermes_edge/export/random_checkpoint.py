"""Checkpoints with random weights: the real file formats and geometry, without a download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from hermes_edge.errors import SettingsError
from hermes_edge.export.checkpoint import DTYPES
from hermes_edge.export.config import RANDOM_MARKER
from hermes_edge.export.progress import quiet_transformers
from hermes_edge.spec import Precision

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + ' ' -}}
{%- if message['content'] is string -%}
{{- '\\n' + message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>' -}}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'video' -%}{{- '<video>' -}}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{- '\\n' + part['text'] -}}\
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

_TRAINING_TEXT = (
    "You are a helpful assistant. What is happening in the video? Describe the scene in detail.",
    "A person walks into the kitchen, opens the door of the fridge and takes out a bottle of milk.",
    "Before the red car turned left, two people crossed the street with a small dog.",
    "Which objects are on the table now, and where was the cup placed at the beginning?",
    "Summarise the events so far: characters, actions, places and changes over time.",
    "Best option: (A) the man, (B) the woman, (C) the child, (D) none of them.",
)

_GEOMETRY: dict[str, dict[str, Any]] = {
    "tiny": {
        "text": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 10,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "vocab_size": 512,
        },
        "vision": {
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 112,
        },
    },
    "llava-onevision-0.5b": {
        "text": {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "vocab_size": 152000,
        },
        "vision": {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 26,
            "num_attention_heads": 16,
            "image_size": 384,
        },
    },
}
_GEOMETRY["llava-onevision-7b"] = {
    "text": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "vocab_size": 152128,
        "tie_word_embeddings": False,
    },
    "vision": _GEOMETRY["llava-onevision-0.5b"]["vision"],
}


def make_random_checkpoint(
    path: str | Path,
    preset: str = "tiny",
    *,
    seed: int = 0,
    shard_bytes: int | None = None,
    precision: Precision = "fp32",
    device: str = "cpu",
) -> Path:
    """Write a complete LLaVA-OneVision checkpoint whose weights are noise.

    Every weight is random, norms and biases too, so that a tensor in the wrong place shows.

    Args:
        path: the folder, made where it does not exist.
        preset: ``tiny`` (10 layers, 16 tokens a frame, under 2 MB), ``llava-onevision-0.5b`` or
            ``llava-onevision-7b`` (the full geometries, 3.6 and 32 GB in fp32).
        seed: of the weights.
        shard_bytes: split the weights into files of at most this size.
        precision: of the weights as stored.
        device: torch's name of where they are drawn; equal seeds differ from device to device.

    Returns:
        The folder.

    Raises:
        SettingsError: unknown preset.
    """
    if preset not in _GEOMETRY:
        raise SettingsError("unknown preset", required=" or ".join(_GEOMETRY), found=preset)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(_GEOMETRY[preset]["text"]["vocab_size"])
    with torch.device(device), _default_dtype(DTYPES[precision]):
        model = LlavaOnevisionForConditionalGeneration(_config(preset, tokenizer))
    randomise(model, seed)
    limit = "1000GB" if shard_bytes is None else shard_bytes
    with quiet_transformers():
        model.save_pretrained(folder, max_shard_size=limit)
    _mark_random(folder)
    write_processor(folder, _GEOMETRY[preset]["vision"]["image_size"], mean=(0.5, 0.45, 0.55))
    save_tokenizer(folder, tokenizer)
    return folder


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Fill every parameter with seeded noise of a size that keeps activations finite.

    Matrices are scaled by their inputs, so that attention and logits are neither flat nor
    saturated; norm weights lie about one, biases about zero.
    """
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(generator=generator)
            if "embed" in name and parameter.ndim == 2:
                parameter.mul_(0.5)
            elif parameter.ndim >= 2:
                parameter.mul_(parameter[0].numel() ** -0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.mul_(0.1).add_(1.0)
            else:
                parameter.mul_(0.1)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def train_tokenizer(vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer of at most ``vocabulary`` tokens, trained on a few sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary, 512),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT, trainer)
    return tokenizer


def save_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Write the tokenizer and LLaVA-OneVision's chat template as transformers does."""
    tokenizer_class: Any = PreTrainedTokenizerFast
    wrapped = tokenizer_class(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


def _config(preset: str, tokenizer: Any) -> LlavaOnevisionConfig:
    geometry = _GEOMETRY[preset]
    end = tokenizer.token_to_id("<|im_end|>")
    # As in the published 0.5B checkpoint: tied in the text part, not said at the top.
    text = {
        "model_type": "qwen2",
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "eos_token_id": end,
        **geometry["text"],
    }
    vision = {
        "model_type": "siglip_vision_model",
        "patch_size": 14,
        "vision_use_head": False,
        **geometry["vision"],
    }
    config = LlavaOnevisionConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=tokenizer.token_to_id("<image>"),
        video_token_index=tokenizer.token_to_id("<video>"),
    )
    config.eos_token_id = end
    return config


def _mark_random(folder: Path) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document[RANDOM_MARKER] = True
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def write_processor(folder: Path, image_size: int, mean: tuple[float, float, float]) -> None:
    """Write the configuration of an image processor; its deviation equals its mean."""
    settings = {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "processor_class": "LlavaOnevisionProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(mean),
        "size": {"height": image_size, "width": image_size},
    }
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
