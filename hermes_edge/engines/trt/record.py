"""``build.json``: what a plan was built by, for and from, so that no other machine runs it.

A plan that does not fit crashes TensorRT or answers wrongly. Everything that ties it down is
compared before the file is handed over, and every difference is named with the command that mends
it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hermes_edge.contract import GraphName
from hermes_edge.engines.trt.profiles import Profile
from hermes_edge.errors import BundleError
from hermes_edge.manifest import Manifest, sha256_of

BUILD_NAME = "build.json"
ENGINES_FOLDER = "engines"
WEIGHTS_SUFFIX = ".data"
"""Weights that are too large for a graph's file lie beside it, under its name with this suffix."""

_LABELS = {
    "tensorrt": "TensorRT",
    "compute_capability": "compute capability",
    "gpu": "GPU",
    "system": "system",
}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Record):
    """Where plans are at home."""

    tensorrt: str
    compute_capability: str
    gpu: str
    system: str

    @property
    def device_key(self) -> str:
        """Name of the folder for such plans, as ``sm87-trt10.3.0-linux-aarch64``."""
        return device_key(self.model_dump())


def device_key(place: Mapping[str, str]) -> str:
    """The key of ``tensorrt``, ``compute_capability`` and ``system``."""
    capability = place["compute_capability"].replace(".", "")
    return f"sm{capability}-trt{place['tensorrt']}-{place['system']}"


class PlanRecord(_Record):
    """One graph's plan.

    Attributes:
        onnx_sha256: of the graph.
        weights_sha256: of the weights beside it, None where the graph holds them itself.
        profiles: least, usual and most shape by input.
    """

    file: str
    bytes: int
    sha256: str
    onnx_sha256: str
    weights_sha256: str | None = None
    profiles: tuple[dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]], ...]
    flags: tuple[str, ...]


class BuildRecord(_Record):
    """All plans of one folder."""

    schema_version: Literal[1] = 1
    place: Place
    plans: dict[GraphName, PlanRecord]

    def to_json(self) -> str:
        """Indented JSON."""
        return self.model_dump_json(indent=1) + "\n"


def this_system() -> str:
    """Operating system and processor, as ``linux-aarch64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


def read_record(folder: Path) -> BuildRecord:
    """Parse ``build.json``.

    Raises:
        BundleError: the file is missing or damaged.
    """
    path = folder / BUILD_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return BuildRecord.model_validate(document)
    except FileNotFoundError:
        raise BundleError(
            f"{folder} has no {BUILD_NAME}",
            required="plans built by hermes-edge build",
            fix=rebuild(folder),
        ) from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors() if f["loc"]]
        # Without a place it is the whole document.
        found = "; ".join(faults) or type(document).__name__
    # RecursionError: JSON may nest more deeply than Python parses.
    except (OSError, ValueError, RecursionError) as error:
        found = " ".join(str(error).split())
    raise BundleError(
        f"{path} is damaged",
        required="what hermes-edge build writes",
        found=found,
        fix=rebuild(folder),
    )


def graph_digests(manifest: Manifest, name: GraphName) -> tuple[str, str | None]:
    """sha256 of a graph's file, and of the file with its weights where there is one.

    Raises:
        KeyError: the manifest has no such graph.
    """
    file = manifest.graphs[name].file
    digests = {record.path: record.sha256 for record in manifest.files}
    return digests[file], digests.get(f"{file}{WEIGHTS_SUFFIX}")


def place_faults(built: Place, here: Mapping[str, str]) -> list[str]:
    """How the place of plans differs from this machine.

    Args:
        built: where the plans are at home.
        here: what is known of this machine, by the fields of :class:`Place`.
    """
    found = built.model_dump()
    return [
        f"{label}: required {here[field]}, found {found[field]}"
        for field, label in _LABELS.items()
        if field in here and here[field] != found[field]
    ]


def plan_faults(
    folder: Path, record: BuildRecord, name: GraphName, manifest: Manifest, *, deep: bool
) -> list[str]:
    """How a plan differs from its record and from a bundle's graph.

    Args:
        folder: of the plan.
        record: of the folder.
        name: of the graph.
        manifest: of the bundle.
        deep: read the whole plan and compare its sha256; its size is always compared.
    """
    plan = record.plans.get(name)
    if plan is None:
        return [f"{name}: required a plan, found none"]
    if name not in manifest.graphs:
        return [f"{name}: required no such graph, found a plan"]
    graph = manifest.graphs[name].file
    faults = [
        f"{file}: required {f'sha256 {wanted}' if wanted else 'no such file'}, found {built}"
        for file, wanted, built in zip(
            (graph, f"{graph}{WEIGHTS_SUFFIX}"),
            graph_digests(manifest, name),
            (plan.onnx_sha256, plan.weights_sha256),
            strict=True,
        )
        if wanted != built
    ]
    path = folder / plan.file
    if Path(plan.file).name != plan.file:
        faults.append(f"{plan.file}: required a file of this folder")
    elif not path.is_file():
        faults.append(f"{plan.file}: required {plan.bytes} bytes, found no file")
    elif (size := path.stat().st_size) != plan.bytes:
        faults.append(f"{plan.file}: required {plan.bytes} bytes, found {size}")
    elif deep and (digest := sha256_of(path)) != plan.sha256:
        faults.append(f"{plan.file}: required sha256 {plan.sha256}, found {digest}")
    return faults


def check_plan(
    folder: Path, record: BuildRecord, name: GraphName, here: Place, manifest: Manifest
) -> Path:
    """The path of a plan that fits this machine and this bundle.

    Raises:
        BundleError: every mismatch at once, with required and found.
    """
    faults = place_faults(record.place, here.model_dump())
    faults += plan_faults(folder, record, name, manifest, deep=True)
    if faults:
        raise BundleError(f"{folder} cannot be used here: {'; '.join(faults)}", fix=rebuild(folder))
    return folder / record.plans[name].file


def as_json(
    profiles: tuple[Profile, ...],
) -> tuple[dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]], ...]:
    """Profiles in the form of :class:`PlanRecord`."""
    return tuple(
        {name: (r.least, r.usual, r.most) for name, r in profile.items()} for profile in profiles
    )


def rebuild(folder: Path) -> str:
    """What mends a plan."""
    return f"Build it on this machine: hermes-edge build {folder.parent.parent}"
