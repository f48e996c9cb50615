"""``manifest.json``: what a bundle is, file by file and tensor by tensor.

The exporter writes it, the runtime trusts nothing else. Unknown keys are refused, so a damaged or
newer manifest is named as such instead of being half understood.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hermes_edge.contract import GraphName, TensorSpec, is_static
from hermes_edge.errors import BundleError
from hermes_edge.spec import DecoderSpec, Precision, Quantization, VisionSpec
from hermes_edge.storage import open_regular

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
EMBEDDINGS_NAME = "embeddings.safetensors"
EMBEDDINGS_TENSOR = "embeddings"
TOKENIZER_NAME = "tokenizer.json"
CHAT_TEMPLATE_NAME = "chat_template.jinja"

Family = Literal["llava_onevision", "qwen2"]

# Of parity, by what is compared with: the original model, the graph itself called otherwise, plain
# arithmetic; as shares of the largest magnitude.
# Largest measured (x86-64, ONNX Runtime 1.32; geometry of LLaVA-OneVision-0.5B, and a tiny one):
# fp32 1.4e-6, 8.2e-7, 8.4e-7; fp16 1.3e-3, 4.9e-4, 2.4e-4 (one rounding to half is 4.9e-4).
# The rest is room for other processors, which sum in another order, and for trained weights.
TOLERANCES: dict[Precision, dict[str, float]] = {
    "fp32": {"original": 1e-4, "itself": 1e-4, "arithmetic": 1e-5},
    "fp16": {"original": 5e-3, "itself": 2e-3, "arithmetic": 1e-3},
    # 1.3e-2, 1.1e-2, 4.0e-3 on the CPU with every bf16 result rounded (hermes_edge.export.widened).
    "bf16": {"original": 4e-2, "itself": 4e-2, "arithmetic": 1e-2},
}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Record):
    """One file of the bundle, by its path inside the folder."""

    path: str
    bytes: int
    sha256: str


class GraphRecord(_Record):
    """One ONNX graph: its file, its dialect and its surface as in the contract.

    ``quantization`` is that of its weight matrices; everything else has the precision.
    """

    file: str
    opset: int
    precision: Precision
    quantization: Quantization | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class ParityCheck(_Record):
    """One comparison with the original model; ``measured`` must not exceed ``tolerance``."""

    name: str
    measured: float
    tolerance: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        """False too where the measurement is not a number."""
        return self.measured <= self.tolerance


class ParityCost(_Record):
    """What rounded weights cost against the original's own: a figure, not a verdict."""

    name: str
    measured: float
    unit: str


class ParityReport(_Record):
    """What the export compared, against what, and how it came out.

    A quantized decoder, and a bundle in bf16, is checked against the original with equally rounded
    weights; ``costs`` says how far it is from the original itself.
    """

    reference: str
    checks: tuple[ParityCheck, ...]
    costs: tuple[ParityCost, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


class Manifest(_Record):
    """The whole description of a bundle."""

    schema_version: Literal[1] = 1
    model_id: str
    family: Family
    precision: Precision
    random_weights: bool
    decoder: DecoderSpec
    vision: VisionSpec | None
    tokens_per_frame: int
    chunk_frames: int
    video_token: str | None
    eos_token_ids: tuple[int, ...]
    graphs: dict[GraphName, GraphRecord]
    files: tuple[FileRecord, ...]
    parity: ParityReport | None
    tools: dict[str, str]

    @property
    def quantization(self) -> Quantization | None:
        """Of the decoder's matrices."""
        return self.graphs["decoder"].quantization

    @property
    def identity(self) -> str:
        """Hex sha256 over all files' hashes: the same for copies, another for any other weights."""
        lines = sorted(f"{record.sha256} {record.path}\n" for record in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def static_decode(self) -> bool:
        """Whether the decoder is one for static decoding."""
        return is_static(self.graphs["decoder"].inputs)

    def to_json(self) -> str:
        """Indented JSON, keys in the order of the fields."""
        return self.model_dump_json(indent=1) + "\n"


def read_manifest(bundle: Path) -> Manifest:
    """Parse ``bundle/manifest.json``.

    Raises:
        BundleError: the folder or manifest is missing, is not JSON, has another schema version,
            or holds unknown, missing or mistyped fields (all of them are listed).
    """
    path = bundle / MANIFEST_NAME
    try:
        with open_regular(path) as file:
            content = file.read()
        document: Any = json.loads(content.decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        found = "a file" if bundle.exists() else "no such folder"
        raise BundleError(
            f"{bundle} is not a bundle",
            required=f"a folder with {MANIFEST_NAME}",
            found="a folder without it" if bundle.is_dir() else found,
            fix="Make one with: hermes-edge export CHECKPOINT -o BUNDLE",
        ) from None
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None
    # RecursionError: JSON may nest more deeply than Python parses.
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} is damaged", required="JSON in UTF-8", found=str(error), fix=_REEXPORT
        ) from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(
            f"{path} has another schema",
            required=f"schema_version {SCHEMA_VERSION}",
            found=json.dumps(version),
            fix=_REEXPORT,
        )
    try:
        manifest = Manifest.model_validate_json(content, strict=True)
        faults = list(_range_faults(manifest))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    if faults:
        raise BundleError(f"{path} does not fit its schema", found="; ".join(faults), fix=_REEXPORT)
    return manifest


def _range_faults(manifest: Manifest) -> Iterator[str]:
    """Numbers that no model has, found before anything is computed or allocated with them."""
    numbers: dict[str, Any] = {
        f"decoder.{name}": number for name, number in asdict(manifest.decoder).items()
    }
    numbers |= {f"graphs.{name}.opset": graph.opset for name, graph in manifest.graphs.items()}
    numbers |= {name: getattr(manifest, name) for name in ("tokens_per_frame", "chunk_frames")}
    del numbers["decoder.tied_embeddings"]
    vision, ranges = manifest.vision, dict(_RANGES)
    if vision is not None:
        numbers |= {f"vision.{name}": number for name, number in asdict(vision).items()}
        for name in ("vision.image_mean", "vision.image_std"):
            channels = {f"{name}.{n}": value for n, value in enumerate(numbers.pop(name))}
            numbers |= channels
            ranges |= dict.fromkeys(channels, _RANGES[name])
        # It indexes the embedding and the layers behind it, from the end where it is negative.
        ranges["vision.feature_layer"] = (-vision.layers, vision.layers)
    vocabulary = manifest.decoder.vocabulary
    for index, token in enumerate(manifest.eos_token_ids):
        name = f"eos_token_ids.{index}"
        numbers[name], ranges[name] = token, (0, vocabulary - 1)
    for name, number in numbers.items():
        least, most = ranges.get(name, (1, _MOST_COUNT))
        # Written so that what is not a number is refused.
        if not least <= number <= most:
            yield f"{name}: required {least:g} to {most:g}, found {number!r}"
    # A patch of 0 has been named above.
    if vision is not None and vision.patch_size > 0:
        required, found = vision.tokens_per_frame, manifest.tokens_per_frame
        if found != required:
            yield f"tokens_per_frame: required {required} of this vision geometry, found {found}"


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


_REEXPORT = "Export again with: hermes-edge export CHECKPOINT -o BUNDLE"

_MOST_COUNT = (1 << 31) - 1
_TINY, _HUGE = 1e-30, 1e30
_RANGES: dict[str, tuple[float, float]] = {
    "decoder.layers": (1, 1024),
    "decoder.rope_theta": (_TINY, _HUGE),
    "decoder.rms_norm_eps": (_TINY, 1),
    "vision.layer_norm_eps": (_TINY, 1),
    "vision.layers": (1, 1024),
    "vision.image_mean": (0, 1),
    "vision.image_std": (_TINY, 1),
    "vision.rescale_factor": (_TINY, _HUGE),
}
"""Of numbers that are not just counts."""
