"""What ``config.json`` says, as a geometry: keys of transformers 4 and 5, or their defaults.

Whatever the exported graphs would compute differently is refused here, by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import LlavaOnevisionConfig, PretrainedConfig, Qwen2Config, SiglipVisionConfig

from hermes_edge.errors import CheckpointError
from hermes_edge.export.activations import Gelu
from hermes_edge.export.vision import VisionVariant
from hermes_edge.manifest import Family
from hermes_edge.spec import DecoderSpec, VisionSpec

CONFIG_NAME = "config.json"
RANDOM_MARKER = "hermes_edge_random_weights"

_FAMILIES: dict[str, tuple[Family, type[PretrainedConfig]]] = {
    "LlavaOnevisionForConditionalGeneration": ("llava_onevision", LlavaOnevisionConfig),
    "Qwen2ForCausalLM": ("qwen2", Qwen2Config),
}
# Of transformers' image and video processors, where a checkpoint names none.
_DEFAULT_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEFAULT_STD = (0.26862954, 0.26130258, 0.27577711)
_TOWER_ACTIVATIONS = ("gelu_pytorch_tanh", "gelu")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A checkpoint's geometry and the facts that the bundle records."""

    family: Family
    decoder: DecoderSpec
    vision: VisionSpec | None
    vision_variant: VisionVariant | None
    video_token_id: int | None
    eos_token_ids: tuple[int, ...]
    random_weights: bool


def read_config(folder: Path) -> ModelConfig:
    """Read ``config.json``, and for a model that sees, its preprocessor's configuration.

    Raises:
        CheckpointError: the file is missing or damaged, or describes a model that the exported
            graphs would not reproduce.
    """
    path = folder / CONFIG_NAME
    raw = read_json_object(path)
    family, config = _parse(path, raw)
    if family == "qwen2":
        text, vision, variant, video = config, None, None, None
    else:
        text = config.text_config
        _require(path, "text_config.model_type", text.model_type, ("qwen2",))
        vision, variant = _vision(path, folder, config)
        video = config.video_token_id
    return ModelConfig(
        family=family,
        decoder=_decoder(path, text, bool(config.tie_word_embeddings)),
        vision=vision,
        vision_variant=variant,
        video_token_id=video,
        eos_token_ids=_eos_ids(folder, config, text),
        random_weights=raw.get(RANDOM_MARKER) is True,
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint.

    Raises:
        CheckpointError: it is missing, is not JSON, or is not an object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is not a checkpoint", required=f"a folder with {path.name}"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged", required="JSON", found=str(error)) from None
    if not isinstance(document, dict):
        raise CheckpointError(
            f"{path} is damaged", required="a JSON object", found=type(document).__name__
        )
    return document


def _parse(path: Path, raw: dict[str, Any]) -> tuple[Family, PretrainedConfig]:
    named = raw.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else None
    if architecture not in _FAMILIES:
        raise CheckpointError(
            f"{path} names an architecture that cannot be exported",
            required=" or ".join(_FAMILIES),
            found=json.dumps(architecture),
        )
    family, config_class = _FAMILIES[architecture]
    try:
        return family, config_class.from_dict(raw)
    # Whatever the classes raise (they validate with several libraries), the file is at fault.
    except Exception as error:
        raise CheckpointError(
            f"{path} does not describe a {architecture}",
            found=" ".join(str(error).split()) or type(error).__name__,
        ) from None


def _decoder(path: Path, text: PretrainedConfig, tied: bool) -> DecoderSpec:
    rope = text.rope_parameters
    _require(path, "hidden_act", text.hidden_act, ("silu",))
    _require(path, "rope_parameters.rope_type", rope["rope_type"], ("default",))
    _require(
        path, "rope_parameters.partial_rotary_factor", rope.get("partial_rotary_factor", 1), (1,)
    )
    if "sliding_attention" in text.layer_types:
        _require(path, "use_sliding_window", True, (False,))
    heads, kv_heads, width = (
        text.num_attention_heads,
        text.num_key_value_heads,
        text.hidden_size,
    )
    if min(heads, kv_heads) < 1 or heads % kv_heads:
        raise CheckpointError(
            f"{path} has query heads that cannot share its key-value heads",
            required="num_attention_heads a multiple of num_key_value_heads, both at least 1",
            found=f"{heads} and {kv_heads}",
        )
    head_size = getattr(text, "head_dim", None) or width // heads
    if head_size % 2:
        raise CheckpointError(
            f"{path} has a head size that rotary positions cannot halve",
            required="an even number",
            found=head_size,
        )
    return DecoderSpec(
        layers=text.num_hidden_layers,
        embedding_width=width,
        query_heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        mlp_width=text.intermediate_size,
        vocabulary=text.vocab_size,
        max_positions=text.max_position_embeddings,
        rope_theta=float(rope["rope_theta"]),
        rms_norm_eps=float(text.rms_norm_eps),
        tied_embeddings=tied,
    )


def _vision(path: Path, folder: Path, config: Any) -> tuple[VisionSpec, VisionVariant]:
    tower: SiglipVisionConfig = config.vision_config
    _require(path, "vision_config.model_type", tower.model_type, ("siglip_vision_model",))
    _require(path, "vision_config.hidden_act", tower.hidden_act, _TOWER_ACTIVATIONS)
    _require(path, "vision_config.num_channels", tower.num_channels, (3,))
    _require(path, "projector_hidden_act", config.projector_hidden_act, ("gelu",))
    strategy = config.vision_feature_select_strategy
    _require(path, "vision_feature_select_strategy", strategy, ("full",))
    states = tower.num_hidden_layers + 1
    layers = tuple(range(-states, states))
    feature = config.vision_feature_layer
    if feature not in layers:
        raise CheckpointError(
            f"{path} has a vision_feature_layer that cannot be exported",
            required=f"one number from {-states} to {states - 1}",
            found=json.dumps(feature),
        )
    mean, std, factor = _pixel_scale(folder)
    image_size, patch_size = tower.image_size, tower.patch_size
    if not (isinstance(image_size, int) and isinstance(patch_size, int)):
        raise CheckpointError(
            f"{path} has frames or patches that are not square",
            required="image_size and patch_size as one number each",
            found=json.dumps([image_size, patch_size]),
        )
    spec = VisionSpec(
        image_size=image_size,
        patch_size=patch_size,
        width=tower.hidden_size,
        mlp_width=tower.intermediate_size,
        layers=tower.num_hidden_layers,
        heads=tower.num_attention_heads,
        layer_norm_eps=float(tower.layer_norm_eps),
        feature_layer=feature,
        image_mean=mean,
        image_std=std,
        rescale_factor=factor,
    )
    return spec, VisionVariant(
        tower_activation=cast(Gelu, tower.hidden_act),
        projector_activation=cast(Gelu, config.projector_hidden_act),
        projector_bias=config.multimodal_projector_bias,
    )


Triple = tuple[float, float, float]


def _pixel_scale(folder: Path) -> tuple[Triple, Triple, float]:
    """Mean, standard deviation and rescale factor: the video processor's, else the image's."""
    found: dict[str, Any] = {}
    for name, section in (
        ("preprocessor_config.json", None),
        ("processor_config.json", "image_processor"),
        ("video_preprocessor_config.json", None),
        ("processor_config.json", "video_processor"),
    ):
        if (folder / name).is_file():
            document = read_json_object(folder / name)
            found |= document if section is None else document.get(section) or {}
    factor = 1.0
    if found.get("do_rescale", True):
        factor = _number(folder, "rescale_factor", found.get("rescale_factor", 1 / 255))
    if not found.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), factor
    mean = _triple(folder, "image_mean", found.get("image_mean", _DEFAULT_MEAN))
    std = _triple(folder, "image_std", found.get("image_std", _DEFAULT_STD))
    if 0.0 in std:
        raise CheckpointError(
            f"{folder}: image_std of the preprocessor is unusable",
            required="numbers other than 0",
            found=json.dumps(std),
        )
    return mean, std, factor


def _number(folder: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(
            f"{folder}: {key} of the preprocessor is unusable",
            required="a number",
            found=json.dumps(value),
        )
    return float(value)


def _triple(folder: Path, key: str, value: Any) -> Triple:
    try:
        red, green, blue = map(float, value)
    except (TypeError, ValueError):
        raise CheckpointError(
            f"{folder}: {key} of the preprocessor is unusable",
            required="three numbers",
            found=json.dumps(value),
        ) from None
    return red, green, blue


def _eos_ids(folder: Path, config: Any, text: Any) -> tuple[int, ...]:
    """End-of-sequence ids of ``generation_config.json``, else of the configuration."""
    generation = folder / "generation_config.json"
    named = read_json_object(generation).get("eos_token_id") if generation.is_file() else None
    for source in (config, text):
        named = getattr(source, "eos_token_id", None) if named is None else named
    ids = named if isinstance(named, list) else [named]
    return tuple(token for token in ids if isinstance(token, int))


def _require(path: Path, key: str, found: object, supported: tuple[object, ...]) -> None:
    if found not in supported:
        raise CheckpointError(
            f"{path} asks for a {key} that cannot be exported",
            required=" or ".join(json.dumps(value) for value in supported),
            found=json.dumps(found, default=str),
        )
