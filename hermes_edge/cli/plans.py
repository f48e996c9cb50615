"""Are the TensorRT plans of a bundle for this machine? A part of ``hermes-edge doctor``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_edge.cli.checks import Check, Status
from hermes_edge.cli.hardware import Machine, gpu_facts, tensorrt_fix
from hermes_edge.errors import HermesEdgeError
from hermes_edge.manifest import MANIFEST_NAME
from hermes_edge.settings import load_settings

if TYPE_CHECKING:
    from hermes_edge.engines import Bundle
    from hermes_edge.engines.cuda import CudaDevice

_BUNDLES_FOLDER = Path("engines")
_FP16 = "hermes-edge export CHECKPOINT -o BUNDLE --dtype fp16"


@dataclass(frozen=True, slots=True)
class Here:
    """What plans must fit.

    Attributes:
        facts: by the fields of a plan's place: ``tensorrt``, ``compute_capability``, ``gpu``,
            ``system``, as far as they are known.
        missing: what this machine lacks to run any plan, None where nothing is missing.
        fix: the command that mends it.
    """

    facts: Mapping[str, str]
    missing: str | None = None
    fix: str | None = None


def look_here(machine: Machine, open_device: Callable[[], CudaDevice] | None = None) -> Here:
    """Versions of this machine.

    Args:
        machine: where the kernel's files and commands are.
        open_device: of the first GPU; asked where nvidia-smi does not tell, as on a Jetson.
    """
    from hermes_edge.engines.trt.api import import_tensorrt
    from hermes_edge.engines.trt.record import this_system

    gpu = _first_gpu(machine, open_device)
    facts = {"system": this_system(), **gpu}
    try:
        facts["tensorrt"] = str(import_tensorrt().__version__)
    except HermesEdgeError:
        return Here(facts, "TensorRT", tensorrt_fix(machine.is_jetson))
    if not gpu:
        return Here(facts, "usable GPU", "nvidia-smi (it says why)")
    return Here(facts)


def _first_gpu(machine: Machine, open_device: Callable[[], CudaDevice] | None) -> dict[str, str]:
    from hermes_edge.engines.cuda import CudaDevice

    if not machine.has_driver:
        return {}
    for name, capability, _ in gpu_facts(machine) or ():
        if re.fullmatch(r"\d+\.\d+", capability):
            return {"gpu": name, "compute_capability": capability}
    try:
        device = (open_device or CudaDevice)()
    except HermesEdgeError:
        return {}
    return {"gpu": device.gpu, "compute_capability": device.compute_capability}


def find_bundles(given: list[Path] | None) -> list[Path]:
    """Bundles to look at: those given, or that of the settings and those in ``./engines``.

    Raises:
        SettingsError: the settings are wrong.
    """
    if given:
        return given
    named = load_settings({}).bundle
    found = [path.parent for path in sorted(_BUNDLES_FOLDER.glob(f"*/{MANIFEST_NAME}"))]
    return [*([named] if named is not None else []), *(path for path in found if path != named)]


def examine_plans(given: list[Path] | None, machine: Machine) -> Iterator[Check]:
    """Plans of all bundles that are given, or else found."""
    try:
        bundles = find_bundles(given)
    except HermesEdgeError as error:
        yield _from_error("settings", "fail", error)
        return
    if bundles:
        here = look_here(machine)
        for bundle in bundles:
            yield from check_plans(bundle, here)


def check_plans(path: Path, here: Here) -> Iterator[Check]:
    """A bundle's folders of plans, one line each; every plan's record and size, not its hash.

    Args:
        path: of the bundle.
        here: this machine.
    """
    from hermes_edge.engines import Bundle
    from hermes_edge.engines.trt.record import ENGINES_FOLDER, device_key

    name = f"plans of {path.name}"
    try:
        bundle = Bundle.open(path, check_hashes=False)
    except HermesEdgeError as error:
        yield _from_error(f"bundle {path.name}", "fail", error)
        return
    if bundle.manifest.precision == "bf16":
        yield _bf16(path, here)
    ours = device_key(here.facts) if here.missing is None else None
    engines = path / ENGINES_FOLDER
    if engines.exists() and not engines.is_dir():
        found = f"{engines}: required a folder of plans, found a file"
        yield Check(name, "fail" if ours is not None else "warn", found, f"rm {engines}")
        return
    folders = sorted(p for p in engines.iterdir() if p.is_dir()) if engines.is_dir() else []
    if not folders:
        if ours is not None:
            yield Check(name, "warn", f"none for this machine, {ours}", _build(path))
        return
    served = any(folder.name == ours for folder in folders)
    for folder in folders:
        if folder.name.endswith(".part"):
            found = f"{folder.name}: left by a build that was ended, or one that runs now"
            yield Check(name, "warn", found, f"rm -r {folder}")
        else:
            yield _check_folder(name, bundle, folder, here, folder.name == ours, served)


def _check_folder(
    name: str, bundle: Bundle, folder: Path, here: Here, ours: bool, served: bool
) -> Check:
    """``ours``: it is this machine's folder; ``served``: there is one that is."""
    from hermes_edge.engines.trt.record import place_faults, plan_faults, read_record

    try:
        record = read_record(folder)
    except HermesEdgeError as error:
        # Building here would leave another machine's folder as it is.
        ours = ours or _may_be_ours(folder.name, here)
        fix = _build(bundle.path) if ours else f"rm -r {folder}"
        return _from_error(name, "fail" if ours else "warn", error, fix)
    faults = place_faults(record.place, here.facts)
    if not ours and record.place.device_key != folder.name:
        faults.append(f"folder: required {record.place.device_key}, found {folder.name}")
    if faults and not ours:
        found = f"{folder.name}: for another machine: {'; '.join(faults)}"
        if served:
            return Check(name, "pass", found)
        return Check(name, "warn", found, here.fix or _build(bundle.path))
    for graph in bundle.manifest.graphs:
        faults += plan_faults(folder, record, graph, bundle.manifest, deep=False)
    if faults:
        return Check(name, "fail", f"{folder.name}: {'; '.join(faults)}", _build(bundle.path))
    if here.missing is not None:
        found = f"{folder.name}: {len(record.plans)} plans, and no {here.missing} here"
        # Built for this very GPU, or for one that nobody can see.
        return Check(name, "fail" if "gpu" in here.facts else "warn", found, here.fix)
    return Check(name, "pass", f"{folder.name}: {len(record.plans)} plans for this machine")


def _may_be_ours(key: str, here: Here) -> bool:
    """Whether a folder may be this machine's, where this machine cannot tell its own key."""
    capability = here.facts.get("compute_capability", "").replace(".", "")
    version, system = here.facts.get("tensorrt", ""), here.facts.get("system", "")
    parts = key.startswith(f"sm{capability}"), f"-trt{version}" in key, key.endswith(system)
    return here.missing is not None and all(parts)


def _bf16(path: Path, here: Here) -> Check:
    """ONNX Runtime's processor and GPUs before Ampere cannot compute in bf16."""
    from hermes_edge.engines.cuda import check_precision

    name, gpu = f"bf16 of {path.name}", here.facts.get("gpu", "")
    capability = here.facts.get("compute_capability")
    if capability is None:
        found = "no GPU here; ONNX Runtime cannot compute in bf16 on the CPU: required a GPU of "
        found += "compute capability 8.0 or newer"
        return Check(name, "warn", found, _FP16)
    try:
        check_precision("bf16", gpu, capability)
    except HermesEdgeError as error:
        return _from_error(name, "fail", error, _FP16)
    return Check(name, "pass", f"{gpu}, compute capability {capability}; not on the CPU")


def _build(bundle: Path) -> str:
    return f"hermes-edge build {bundle}"


def _from_error(name: str, status: Status, error: HermesEdgeError, fix: str | None = None) -> Check:
    facts = HermesEdgeError(error.problem, required=error.required, found=error.found)
    return Check(name, status, str(facts), fix or error.fix)
