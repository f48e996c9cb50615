"""Tensors by one name from every layout on disk, and every way in which files are damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hermes_edge.errors import CheckpointError
from hermes_edge.export.weights import Weights, canonical_name

QUERY = "language_model.layers.0.self_attn.q_proj.weight"
PATCH = "vision_tower.embeddings.patch_embedding.bias"


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("language_model.model.layers.0.self_attn.q_proj.weight", QUERY),
        ("model.language_model.layers.0.self_attn.q_proj.weight", QUERY),
        ("model.layers.0.self_attn.q_proj.weight", QUERY),
        ("language_model.model.norm.weight", "language_model.norm.weight"),
        ("model.embed_tokens.weight", "language_model.embed_tokens.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("vision_tower.embeddings.patch_embedding.bias", PATCH),
        ("vision_tower.vision_model.embeddings.patch_embedding.bias", PATCH),
        ("model.vision_tower.embeddings.patch_embedding.bias", PATCH),
        ("model.vision_tower.vision_model.embeddings.patch_embedding.bias", PATCH),
        ("model.multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"),
        ("multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"),
    ],
)
def test_one_name(stored: str, name: str) -> None:
    assert canonical_name(stored) == name
    assert canonical_name(name) == name


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator)
        for name, shape in {
            "model.norm.weight": (4,),
            "model.embed_tokens.weight": (6, 4),
            "lm_head.weight": (6, 4),
        }.items()
    }


def write_shards(folder: Path) -> Path:
    index = {}
    for number, (name, tensor) in enumerate(tensors().items()):
        index[name] = f"model-{number}.safetensors"
        save_file({name: tensor}, folder / index[name])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def write_single(folder: Path) -> Path:
    save_file(tensors(), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("write", [write_single, write_shards])
def test_reads_both_layouts(tmp_path: Path, write: object) -> None:
    assert callable(write)
    weights = Weights.open(write(tmp_path))
    weights.check({"language_model.norm.weight": (4,), "lm_head.weight": (6, 4)})
    for stored, expected in tensors().items():
        assert torch.equal(weights.load(canonical_name(stored), torch.float32), expected)


def test_converts(tmp_path: Path) -> None:
    save_file(
        {"lm_head.weight": torch.tensor([1.5, -2.0]).bfloat16()}, tmp_path / "model.safetensors"
    )
    weights = Weights.open(tmp_path)
    for dtype in (torch.float32, torch.float16):
        assert torch.equal(
            weights.load("lm_head.weight", dtype), torch.tensor([1.5, -2.0]).to(dtype)
        )


def test_lists_everything_missing(tmp_path: Path) -> None:
    weights = Weights.open(write_single(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        weights.check({"b.weight": (1,), "lm_head.weight": (6, 4), "a.weight": (1,)})
    assert str(caught.value) == (
        "2 tensors are missing in the checkpoint: required a.weight, b.weight. "
        "Its weights are incomplete, or of another model than config.json says."
    )


def test_lists_every_wrong_shape(tmp_path: Path) -> None:
    weights = Weights.open(write_single(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        weights.check({"language_model.norm.weight": (5,), "lm_head.weight": (6, 8)})
    assert str(caught.value) == (
        "2 tensors have another shape than config.json says: "
        "required language_model.norm.weight [5], lm_head.weight [6, 8], found [4], [6, 4]"
    )


def test_missing_shards(tmp_path: Path) -> None:
    write_shards(tmp_path)
    for number in (0, 2):
        (tmp_path / f"model-{number}.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        Weights.open(tmp_path)
    assert str(caught.value) == (
        f"2 of 3 weight files are missing in {tmp_path}: "
        "required model-0.safetensors, model-2.safetensors. Download them again."
    )


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": 3}'], ids=["cut", "list", "empty", "number"]
)
def test_damaged_index(tmp_path: Path, content: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        Weights.open(tmp_path)
    assert str(caught.value) == (
        f'{index} is damaged: required JSON with a "weight_map". Download it again.'
    )


@pytest.mark.parametrize("kept_bytes", [0, 4, 200], ids=["empty", "no header", "half"])
def test_truncated(tmp_path: Path, kept_bytes: int) -> None:
    path = write_single(tmp_path) / "model.safetensors"
    assert path.stat().st_size > kept_bytes
    os.truncate(path, kept_bytes)
    with pytest.raises(CheckpointError) as caught:
        Weights.open(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path} is damaged: required a complete safetensors file, found ")
    assert message.endswith("Download it again.")


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        Weights.open(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no weights: required model.safetensors or model.safetensors.index.json"
    )


def test_too_large_for_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"lm_head.weight": torch.tensor([1.0, 70000.0])}, path)
    weights = Weights.open(tmp_path)
    assert weights.load("lm_head.weight", torch.float32)[1] == 70000.0
    with pytest.raises(CheckpointError) as caught:
        weights.load("lm_head.weight", torch.float16)
    assert str(caught.value) == (
        f"lm_head.weight in {path} has values that are not finite: required values in the range of "
        "torch.float16. Export with --dtype fp32."
    )


def test_not_a_number(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"lm_head.weight": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(CheckpointError) as caught:
        Weights.open(tmp_path).load("lm_head.weight", torch.float32)
    assert str(caught.value) == (
        f"lm_head.weight in {path} has values that are not finite: required finite values. "
        "Download it again."
    )
