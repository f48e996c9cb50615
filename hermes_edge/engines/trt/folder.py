"""A bundle's folder of plans for one machine: ``engines/<device key>/``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hermes_edge.contract import GraphName
from hermes_edge.engines.bundle import Bundle
from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.engines.trt.engine import TensorRTEngine
from hermes_edge.engines.trt.profiles import Profile, Range
from hermes_edge.engines.trt.record import (
    ENGINES_FOLDER,
    BuildRecord,
    Place,
    check_plan,
    read_record,
    this_system,
)
from hermes_edge.errors import BundleError


def place_of(trt: Any, device: CudaDevice) -> Place:
    """Where plans of this TensorRT and this GPU are at home."""
    return Place(
        tensorrt=trt.__version__,
        compute_capability=device.compute_capability,
        gpu=device.gpu,
        system=this_system(),
    )


@dataclass(frozen=True, slots=True)
class PlanFolder:
    """Plans that fit a machine; each is checked when it is loaded."""

    bundle: Bundle
    path: Path
    record: BuildRecord
    here: Place

    @classmethod
    def open(cls, bundle: Bundle, here: Place) -> PlanFolder:
        """The folder of a place.

        Raises:
            BundleError: there is none; those of other places are named.
        """
        engines = bundle.path / ENGINES_FOLDER
        path = engines / here.device_key
        if not path.is_dir():
            others = sorted(p.name for p in engines.iterdir()) if engines.is_dir() else []
            raise BundleError(
                f"{bundle.path} has no plans for this machine",
                required=here.device_key,
                found=", ".join(others) or "none",
                fix=f"Build them here: hermes-edge build {bundle.path}",
            )
        return cls(bundle, path, read_record(path), here)

    def engine(self, trt: Any, device: CudaDevice, name: GraphName) -> TensorRTEngine:
        """A graph's plan, loaded into a GPU.

        Raises:
            BundleError: the bundle has no such graph, or its plan does not fit.
            EngineError: there is no memory for it, or TensorRT refuses it.
        """
        plan, profiles = self.load(name)
        return TensorRTEngine(trt, plan, self.bundle.graph(name), profiles, device)

    def load(self, name: GraphName) -> tuple[bytes, tuple[Profile, ...]]:
        """A plan's bytes and profiles.

        Raises:
            BundleError: every way in which it does not fit, at once.
        """
        path = check_plan(self.path, self.record, name, self.here, self.bundle.manifest)
        profiles = tuple(
            {tensor: Range(*bounds) for tensor, bounds in profile.items()}
            for profile in self.record.plans[name].profiles
        )
        return path.read_bytes(), profiles
