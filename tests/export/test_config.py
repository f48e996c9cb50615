"""``config.json`` of both generations of transformers, and everything that it may get wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2Config

from hermes_edge.errors import CheckpointError
from hermes_edge.export.config import read_config

Document = dict[str, Any]

TEXT: Document = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
}
VISION: Document = {
    "model_type": "siglip_vision_model",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 112,
    "patch_size": 14,
}


def llava() -> Document:
    return {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "model_type": "llava_onevision",
        "text_config": json.loads(json.dumps(TEXT)),
        "vision_config": dict(VISION),
        "video_token_index": 299,
    }


def qwen2() -> Document:
    return {"architectures": ["Qwen2ForCausalLM"], **json.loads(json.dumps(TEXT))}


def write(folder: Path, document: object, **others: object) -> Path:
    (folder / "config.json").write_text(json.dumps(document))
    for name, content in others.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_geometry_of_a_model_that_sees(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, llava()))
    decoder, vision = config.decoder, config.vision
    assert (config.family, config.video_token_id) == ("llava_onevision", 299)
    assert (decoder.layers, decoder.query_heads, decoder.kv_heads) == (3, 4, 2)
    assert (decoder.head_size, decoder.mlp_width, decoder.vocabulary) == (16, 128, 300)
    assert (decoder.rope_theta, decoder.max_positions) == (5000.0, 2048)
    assert decoder.tied_embeddings, "said in text_config alone, as the published checkpoints do"
    assert vision is not None
    assert (vision.used_layers, vision.tokens_per_frame) == (2, 16)
    assert not config.random_weights


def test_plain_decoder(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, qwen2() | {"tie_word_embeddings": False}))
    assert (config.family, config.vision, config.video_token_id) == ("qwen2", None, None)
    assert not config.decoder.tied_embeddings


def test_keys_of_transformers_4(tmp_path: Path) -> None:
    old = qwen2()
    del old["rope_parameters"]
    old |= {"rope_theta": 5000.0, "torch_dtype": "float16", "use_sliding_window": False}
    (tmp_path / "new").mkdir()
    assert read_config(write(tmp_path, old)) == read_config(write(tmp_path / "new", qwen2()))


def test_defaults_are_those_of_transformers(tmp_path: Path) -> None:
    decoder = read_config(write(tmp_path, {"architectures": ["Qwen2ForCausalLM"]})).decoder
    default = Qwen2Config()
    assert default.rope_parameters is not None
    assert decoder.layers == default.num_hidden_layers
    assert decoder.rms_norm_eps == default.rms_norm_eps
    assert decoder.rope_theta == default.rope_parameters["rope_theta"]


def test_random_marker(tmp_path: Path) -> None:
    document = llava() | {"hermes_edge_random_weights": True}
    assert read_config(write(tmp_path, document)).random_weights


@pytest.mark.parametrize(
    ("feature", "used"), [(-1, 2), (-2, 1), (2, 2), (0, 0)], ids=["last", "-2", "2", "0"]
)
def test_feature_layer(tmp_path: Path, feature: int, used: int) -> None:
    vision = read_config(write(tmp_path, llava() | {"vision_feature_layer": feature})).vision
    assert vision is not None
    assert vision.used_layers == used


def test_eos_of_generation_config_comes_first(tmp_path: Path) -> None:
    document = qwen2() | {"eos_token_id": 7}
    assert read_config(write(tmp_path, document)).eos_token_ids == (7,)
    write(tmp_path, document, generation_config={"eos_token_id": [5, 6]})
    assert read_config(tmp_path).eos_token_ids == (5, 6)


def test_pixel_scale(tmp_path: Path) -> None:
    image = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 0.01}
    vision = read_config(write(tmp_path, llava())).vision
    assert vision is not None
    assert vision.image_mean == (0.48145466, 0.4578275, 0.40821073)
    assert vision.rescale_factor == 1 / 255
    write(tmp_path, llava(), preprocessor_config=image)
    vision = read_config(tmp_path).vision
    assert vision is not None
    assert (vision.image_mean, vision.rescale_factor) == ((0.1, 0.2, 0.3), 0.01)
    write(tmp_path, llava(), video_preprocessor_config={"image_mean": [0.7, 0.8, 0.9]})
    vision = read_config(tmp_path).vision
    assert vision is not None
    assert (vision.image_mean, vision.image_std) == ((0.7, 0.8, 0.9), (0.4, 0.5, 0.6))


def test_pixels_that_are_not_scaled(tmp_path: Path) -> None:
    plain = {"do_rescale": False, "do_normalize": False, "image_mean": [0.5, 0.5, 0.5]}
    vision = read_config(write(tmp_path, llava(), preprocessor_config=plain)).vision
    assert vision is not None
    assert (vision.image_mean, vision.image_std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert vision.rescale_factor == 1.0


Edit = Callable[[Document], object]

REFUSED: dict[str, tuple[Edit, str]] = {
    "architecture": (
        lambda d: d.update(architectures=["GPT9"]),
        "names an architecture that cannot be exported: required "
        'LlavaOnevisionForConditionalGeneration or Qwen2ForCausalLM, found "GPT9"',
    ),
    "no architecture": (
        lambda d: d.pop("architectures"),
        "names an architecture that cannot be exported: required "
        "LlavaOnevisionForConditionalGeneration or Qwen2ForCausalLM, found null",
    ),
    "rope scaling": (
        lambda d: d["text_config"].update(
            rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 5000.0}
        ),
        'rope_parameters.rope_type that cannot be exported: required "default", found "yarn"',
    ),
    "old rope scaling": (
        lambda d: d["text_config"].update(rope_scaling={"type": "linear", "factor": 2.0}),
        'rope_parameters.rope_type that cannot be exported: required "default", found "linear"',
    ),
    "hidden_act": (
        lambda d: d["text_config"].update(hidden_act="gelu"),
        'hidden_act that cannot be exported: required "silu", found "gelu"',
    ),
    "sliding window": (
        lambda d: d["text_config"].update(
            use_sliding_window=True, sliding_window=64, max_window_layers=1
        ),
        "use_sliding_window that cannot be exported: required false, found true",
    ),
    "tower activation": (
        lambda d: d["vision_config"].update(hidden_act="relu"),
        "vision_config.hidden_act that cannot be exported: "
        'required "gelu_pytorch_tanh" or "gelu", found "relu"',
    ),
    "several feature layers": (
        lambda d: d.update(vision_feature_layer=[-1, -2]),
        "vision_feature_layer that cannot be exported: "
        "required one number from -3 to 2, found [-1, -2]",
    ),
    "feature layer out of range": (
        lambda d: d.update(vision_feature_layer=9),
        "vision_feature_layer that cannot be exported: required one number from -3 to 2, found 9",
    ),
    "feature strategy": (
        lambda d: d.update(vision_feature_select_strategy="default"),
        'vision_feature_select_strategy that cannot be exported: required "full", found "default"',
    ),
    "oblong frames": (
        lambda d: d["vision_config"].update(image_size=[112, 224]),
        "has frames or patches that are not square: "
        "required image_size and patch_size as one number each, found [[112, 224], 14]",
    ),
    "no heads": (
        lambda d: d["text_config"].update(num_key_value_heads=0),
        "required num_attention_heads a multiple of num_key_value_heads, both at least 1, "
        "found 4 and 0",
    ),
    "odd head": (
        lambda d: d["text_config"].update(hidden_size=60),
        "has a head size that rotary positions cannot halve: required an even number, found 15",
    ),
    "mistyped": (
        lambda d: d["text_config"].update(hidden_size="wide"),
        "does not describe a LlavaOnevisionForConditionalGeneration: found",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_model(tmp_path: Path, fault: str) -> None:
    edit, expected = REFUSED[fault]
    document = llava()
    edit(document)
    with pytest.raises(CheckpointError) as caught:
        read_config(write(tmp_path, document))
    assert str(tmp_path / "config.json") in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"image_mean": [1, 2]}, "image_mean of the preprocessor is unusable: required three"),
        ({"image_std": [0, 1, 1]}, "required numbers other than 0, found [0.0, 1.0, 1.0]"),
        ({"rescale_factor": "x"}, "rescale_factor of the preprocessor is unusable: required a nu"),
    ],
    ids=["mean", "std", "factor"],
)
def test_unusable_preprocessor(tmp_path: Path, settings: Document, expected: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_config(write(tmp_path, llava(), preprocessor_config=settings))
    assert expected in str(caught.value)


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is not a checkpoint: required a folder with config.json"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "is damaged: required JSON, found Expecting property name"),
        (b"\xff\xfe\x00", "is damaged: required JSON, found 'utf-8' codec can't decode"),
        (b"[]", "is damaged: required a JSON object, found list"),
    ],
    ids=["cut", "binary", "list"],
)
def test_damaged_config(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    assert expected in str(caught.value)
