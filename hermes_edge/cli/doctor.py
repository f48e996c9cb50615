"""``hermes-edge doctor``: what this machine can do, and the command that mends what it cannot."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from hermes_edge.cli.checks import Check, Status
from hermes_edge.cli.hardware import Machine, examine_hardware
from hermes_edge.cli.output import print_json, size, stdout
from hermes_edge.cli.plans import examine_plans
from hermes_edge.errors import HermesEdgeError
from hermes_edge.installed import installed_version, installed_wheels
from hermes_edge.process import available_bytes
from hermes_edge.shipped import TINY_BUNDLE

# Distribution and the module that it brings.
_CORE = {
    "jinja2": "jinja2",
    "ml-dtypes": "ml_dtypes",
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pydantic": "pydantic",
    "pydantic-settings": "pydantic_settings",
    "rich": "rich",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "typer": "typer",
}
_EXPORT = ("huggingface-hub", "onnx", "onnxscript", "torch", "transformers")

_LOW_MEMORY_BYTES = 1 << 30
_LOW_DISK_BYTES = 2 << 30

_STYLES: dict[Status, str] = {"pass": "green", "warn": "yellow", "fail": "red"}


def doctor(
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            help="Bundle whose TensorRT plans are looked at; may be repeated.",
            show_default="that of the settings, and those in ./engines",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check packages, engines, GPU, plans, cameras, memory and disk. Exit code 1 if any fails."""
    checks = list(examine(bundle))
    healthy = all(check.status != "fail" for check in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            stdout().print(check.status, style=_STYLES[check.status], end="  ")
            stdout().print(f"{check.name:<22} {check.found}")
            if check.fix is not None:
                stdout().print(f"      mend with: {check.fix}")
    if not healthy:
        raise typer.Exit(1)


def examine(bundles: list[Path] | None = None) -> Iterator[Check]:
    """All checks, one after the other.

    Args:
        bundles: whose plans are looked at; None for those of the settings and of ``./engines``.
    """
    yield _python()
    yield _system()
    yield from (_core_package(name, module) for name, module in _CORE.items())
    yield from (_export_package(name) for name in _EXPORT)
    yield from check_onnxruntime(installed_version, TINY_BUNDLE)
    yield from examine_hardware(Machine())
    yield from examine_plans(bundles, Machine())
    yield _memory()
    yield _disk()


def check_onnxruntime(version_of: Callable[[str], str | None], bundle: Path) -> Iterator[Check]:
    """The wheel, then every device that this wheel should serve, with a real engine.

    Args:
        version_of: installed version of a distribution, or None.
        bundle: whose smallest graph is loaded.
    """
    wheels = installed_wheels(version_of)
    if not wheels:
        yield Check("onnxruntime", "fail", "not installed", "pip install 'hermes-edge[cpu]'")
        return
    if len(wheels) > 1:
        yield Check(
            "onnxruntime",
            "fail",
            f"{' and '.join(wheels)} overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'hermes-edge[cpu]'",
        )
        return
    yield Check("onnxruntime", "pass", wheels[0])
    yield _device(bundle, "cpu", "fail", "pip install --force-reinstall 'hermes-edge[cpu]'")
    if version_of("onnxruntime-gpu") is not None:
        yield _device(
            bundle, "cuda", "warn", "nvidia-smi (the driver), then see ONNX Runtime's CUDA needs"
        )


def _device(bundle: Path, device: str, otherwise: Status, fix: str) -> Check:
    """ONNX Runtime lists providers that it cannot create, so an engine is made."""
    from hermes_edge.engines import Bundle

    name = f"engine on {device}"
    try:
        Bundle.open(bundle).engine("compact", device)
    except HermesEdgeError as error:
        return Check(name, otherwise, str(error), fix)
    return Check(name, "pass", "usable")


def _python() -> Check:
    return Check("python", "pass", f"{platform.python_version()} at {sys.executable}")


def _system() -> Check:
    found = f"{platform.system()} {platform.release()}, {platform.machine()}"
    status: Status = "pass" if platform.system() == "Linux" else "warn"
    return Check("system", status, found if status == "pass" else f"{found}: tested on Linux only")


def _core_package(distribution: str, module: str) -> Check:
    fix = f"pip install --force-reinstall {distribution}"
    try:
        # Some devices bring their own OpenCV, of which pip knows nothing: the import counts.
        loaded = import_module(module)
    except ImportError as error:
        return Check(distribution, "fail", f"cannot be imported: {error}", fix)
    found = installed_version(distribution) or str(getattr(loaded, "__version__", "present"))
    return Check(distribution, "pass", found)


def _export_package(distribution: str) -> Check:
    found = installed_version(distribution)
    if found is None:
        return Check(
            distribution,
            "warn",
            "not installed: only export and verify need it",
            "pip install 'hermes-edge[export]'",
        )
    return Check(distribution, "pass", found)


def _memory() -> Check:
    free = available_bytes()
    if free is None:
        return Check("memory", "warn", "this system does not tell")
    if free < _LOW_MEMORY_BYTES:
        fix = "choose a smaller --budget (hermes-edge inspect shows sizes), or end other programs"
        return Check("memory", "warn", f"{size(free)} available", fix)
    return Check("memory", "pass", f"{size(free)} available")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    if free < _LOW_DISK_BYTES:
        fix = f"make room on the disk of {Path.cwd()}, or export to another one"
        return Check("disk", "warn", f"{size(free)} free", fix)
    return Check("disk", "pass", f"{size(free)} free")
