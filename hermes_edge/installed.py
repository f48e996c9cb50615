"""What pip has installed; imports nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

WHEELS = ("onnxruntime", "onnxruntime-gpu")
"""Distributions of ONNX Runtime: one module, so that the second overwrites files of the first."""


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, None where there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def installed_wheels(version_of: Callable[[str], str | None] = installed_version) -> list[str]:
    """Distributions of ONNX Runtime with their versions, as ``onnxruntime 1.20.0``."""
    found = ((name, version_of(name)) for name in WHEELS)
    return [f"{name} {number}" for name, number in found if number is not None]
