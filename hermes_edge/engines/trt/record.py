"""``build.json``: what a plan was built by, for and from, so that no other machine runs it.

A plan that does not fit crashes TensorRT or answers wrongly. Everything that ties it down is
compared before the file is handed over, and every difference is named with the command that mends
it.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hermes_edge.contract import GraphName
from hermes_edge.engines.trt.profiles import Profile
from hermes_edge.errors import BundleError
from hermes_edge.manifest import sha256_of

BUILD_NAME = "build.json"
ENGINES_FOLDER = "engines"


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
        capability = self.compute_capability.replace(".", "")
        return f"sm{capability}-trt{self.tensorrt}-{self.system}"


class PlanRecord(_Record):
    """One graph's plan.

    Attributes:
        onnx_sha256: of the graph; its weights are covered by the manifest's hash of their file.
        profiles: least, usual and most shape by input.
    """

    file: str
    bytes: int
    sha256: str
    onnx_sha256: str
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
        return BuildRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BundleError(
            f"{folder} has no {BUILD_NAME}",
            required="plans built by hermes-edge build",
            fix=rebuild(folder),
        ) from None
    except (OSError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{path} is damaged", found=reason, fix=rebuild(folder)) from None


def check_plan(
    folder: Path, record: BuildRecord, name: GraphName, here: Place, onnx_sha256: str
) -> Path:
    """The path of a plan that fits this machine and this graph.

    Raises:
        BundleError: every mismatch at once, with required and found.
    """
    faults = [
        f"{label}: required {wanted}, found {built}"
        for label, wanted, built in (
            ("TensorRT", here.tensorrt, record.place.tensorrt),
            ("compute capability", here.compute_capability, record.place.compute_capability),
            ("GPU", here.gpu, record.place.gpu),
            ("system", here.system, record.place.system),
        )
        if wanted != built
    ]
    plan = record.plans.get(name)
    if plan is None:
        faults.append(f"a plan of {name}, found none")
        raise _misfit(folder, faults)
    if plan.onnx_sha256 != onnx_sha256:
        faults.append(f"{name}.onnx: required sha256 {onnx_sha256}, found {plan.onnx_sha256}")
    path = folder / plan.file
    if Path(plan.file).name != plan.file:
        faults.append(f"{plan.file}: required a file of this folder")
    elif not path.is_file():
        faults.append(f"{plan.file}: required {plan.bytes} bytes, found no file")
    elif (size := path.stat().st_size) != plan.bytes:
        faults.append(f"{plan.file}: required {plan.bytes} bytes, found {size}")
    elif (digest := sha256_of(path)) != plan.sha256:
        faults.append(f"{plan.file}: required sha256 {plan.sha256}, found {digest}")
    if faults:
        raise _misfit(folder, faults)
    return path


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


def _misfit(folder: Path, faults: list[str]) -> BundleError:
    return BundleError(f"{folder} cannot be used here: {'; '.join(faults)}", fix=rebuild(folder))
