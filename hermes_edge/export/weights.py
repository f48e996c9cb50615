"""Tensors of a checkpoint by one spelling of their names, read from mapped files one at a time.

Names are those of transformers' modules without the outermost ``model.``. On disk the same tensor
has, by age of the file, one of several names::

    language_model.layers.0...   language_model.model.layers.0...   model.language_model.layers.0...
                                 model.layers.0... (a plain Qwen2)
    lm_head.weight               language_model.lm_head.weight
    vision_tower.encoder...      vision_tower.vision_model.encoder...   model.vision_tower...
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hermes_edge.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_RENAMES = (
    (re.compile(r"^model\.(language_model|vision_tower|multi_modal_projector)\."), r"\1."),
    (re.compile(r"^model\.(layers|embed_tokens|norm)\."), r"language_model.\1."),
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^language_model\.model\."), "language_model."),
    (re.compile(r"^vision_tower\.vision_model\."), "vision_tower."),
)


def canonical_name(name: str) -> str:
    """The one spelling of a tensor's name."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


class Weights:
    """The tensors of a checkpoint folder; nothing is read before it is asked for."""

    def __init__(self, places: Mapping[str, tuple[Path, str]]) -> None:
        self._places = places

    @classmethod
    def open(cls, folder: Path) -> Weights:
        """Find every tensor of a folder, in one file or in shards.

        Raises:
            CheckpointError: no safetensors, missing shards (all are named), a damaged file.
        """
        places: dict[str, tuple[Path, str]] = {}
        for path in _weight_files(folder):
            places |= {canonical_name(name): (path, name) for name in _stored_names(path)}
        return cls(places)

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Require tensors of these names and shapes.

        Raises:
            CheckpointError: it lists everything that is missing or has another shape.
        """
        there = expected.keys() & self._places.keys()
        check_shapes({name: self._shape(name) for name in there}, expected)

    def load(self, name: str, dtype: torch.dtype) -> Tensor:
        """One tensor, converted.

        Raises:
            CheckpointError: it holds values that are not finite, or not in this dtype.
        """
        path, stored_name = self._places[name]
        with safe_open(path, framework="pt") as file:
            stored: Tensor = file.get_tensor(stored_name)
        tensor = stored.to(dtype)
        if not tensor.isfinite().all():
            wide = bool(stored.isfinite().all())
            raise CheckpointError(
                f"{stored_name} in {path} has values that are not finite",
                required="finite values" if not wide else f"values in the range of {dtype}",
                fix="Export with --dtype fp32." if wide else "Download it again.",
            )
        return tensor

    def _shape(self, name: str) -> tuple[int, ...]:
        path, stored_name = self._places[name]
        with safe_open(path, framework="pt") as file:
            return tuple(file.get_slice(stored_name).get_shape())


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Require shapes by canonical name.

    Raises:
        CheckpointError: it lists everything that is missing or has another shape.
    """
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise CheckpointError(
            f"{len(missing)} tensors are missing in the checkpoint",
            required=", ".join(missing),
            fix="Its weights are incomplete, or of another model than config.json says.",
        )
    wrong = sorted(name for name, shape in expected.items() if found[name] != shape)
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensors have another shape than config.json says",
            required=", ".join(f"{name} {list(expected[name])}" for name in wrong),
            found=", ".join(str(list(found[name])) for name in wrong),
        )


def _stored_names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged",
            required="a complete safetensors file",
            found=str(error),
            fix="Download it again.",
        ) from None


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            places = json.loads(index.read_bytes())["weight_map"].values()
            names = sorted({str(place) for place in places})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(
                f"{index} is damaged", required='JSON with a "weight_map"', fix="Download it again."
            ) from None
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(
                f"{len(missing)} of {len(names)} weight files are missing in {folder}",
                required=", ".join(missing),
                fix="Download them again.",
            )
        return [folder / name for name in names]
    if not (folder / SINGLE_FILE).is_file():
        raise CheckpointError(f"{folder} has no weights", required=f"{SINGLE_FILE} or {INDEX_FILE}")
    return [folder / SINGLE_FILE]
