"""``manifest.json``: what a bundle is, file by file and tensor by tensor.

The exporter writes it, the runtime trusts nothing else. Unknown keys are refused, so a damaged or
newer manifest is named as such instead of being half understood.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hermes_edge.contract import GraphName, TensorSpec, is_static
from hermes_edge.errors import BundleError
from hermes_edge.spec import DecoderSpec, Precision, Quantization, VisionSpec

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
    """What quantized weights cost against the original's own: a figure, not a verdict."""

    name: str
    measured: float
    unit: str


class ParityReport(_Record):
    """What the export compared, against what, and how it came out.

    A quantized decoder is checked against the original with equally rounded weights; ``costs`` says
    how far it is from the original itself.
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
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{bundle} is not a bundle",
            required=f"a folder with {MANIFEST_NAME}",
            found="a folder without it" if bundle.is_dir() else "no such folder",
            fix="Make one with: hermes-edge export CHECKPOINT -o BUNDLE",
        ) from None
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
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
        return Manifest.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise BundleError(f"{path} does not fit its schema", found=faults, fix=_REEXPORT) from None


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


_REEXPORT = "Export again with: hermes-edge export CHECKPOINT -o BUNDLE"
