"""All plans of a bundle for the machine at hand, in a folder that appears when it is complete."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hermes_edge.contract import GraphName
from hermes_edge.engines.bundle import Bundle
from hermes_edge.engines.cuda import check_precision
from hermes_edge.engines.trt.builder import BuildOptions, BuildProgress, build_plan
from hermes_edge.engines.trt.folder import PlanFolder
from hermes_edge.engines.trt.profiles import Limits, profiles_for
from hermes_edge.engines.trt.record import (
    BUILD_NAME,
    ENGINES_FOLDER,
    BuildRecord,
    Place,
    PlanRecord,
    as_json,
    graph_digests,
)
from hermes_edge.errors import BundleError, StorageError
from hermes_edge.spec import ADDRESS_ALIGNMENT_BYTES

_CACHE_NAME = "timing.cache"


def build_bundle(
    trt: Any,
    bundle: Bundle,
    here: Place,
    limits: Limits,
    options: BuildOptions,
    progress: Callable[[GraphName], BuildProgress],
    *,
    memory: Callable[[], tuple[int, int]] | None = None,
    check: Callable[[PlanFolder], None] | None = None,
) -> Path:
    """Build every graph of a bundle; plans of this place that are there are replaced.

    Args:
        trt: the module ``tensorrt``.
        bundle: what is built.
        here: this machine.
        limits: of the largest session.
        options: of the builds.
        progress: called with each graph's name before its build.
        memory: free bytes and all bytes of the device, for the message where they do not suffice.
        check: called with the complete plans before they replace others; what it raises ends all.

    Returns:
        The folder of the plans.

    Raises:
        BundleError: rows that TensorRT cannot be bound to.
        EngineError: the GPU has no bf16, or TensorRT refuses or fails; plans that were there stay.
        StorageError: the folder cannot be written; plans that were there stay.
    """
    check_precision(bundle.manifest.precision, here.gpu, here.compute_capability)
    row_bytes = bundle.manifest.decoder.row_bytes(bundle.manifest.precision)
    if row_bytes % ADDRESS_ALIGNMENT_BYTES:
        raise BundleError(
            "TensorRT cannot be bound to the rows of this model",
            required=f"a multiple of {ADDRESS_ALIGNMENT_BYTES} bytes",
            found=row_bytes,
            fix="Run it in ONNX Runtime",
        )
    target = bundle.path / ENGINES_FOLDER / here.device_key
    beside = target.with_name(f"{target.name}.part")
    cache = _read(target / _CACHE_NAME)
    plans: dict[GraphName, PlanRecord] = {}
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, graph in bundle.manifest.graphs.items():
            profiles = profiles_for(bundle.graph(name), limits)
            plan, cache = build_plan(
                trt, bundle.path / graph.file, profiles, options, cache, progress(name), memory
            )
            (beside / f"{name}.plan").write_bytes(plan)
            onnx_sha256, weights_sha256 = graph_digests(bundle.manifest, name)
            plans[name] = PlanRecord(
                file=f"{name}.plan",
                bytes=len(plan),
                sha256=hashlib.sha256(plan).hexdigest(),
                onnx_sha256=onnx_sha256,
                weights_sha256=weights_sha256,
                profiles=as_json(profiles),
                flags=options.flags,
            )
        (beside / _CACHE_NAME).write_bytes(cache)
        record = BuildRecord(place=here, plans=plans)
        (beside / BUILD_NAME).write_text(record.to_json(), encoding="utf-8")
        if check is not None:
            check(PlanFolder(bundle, beside, record, here))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(beside, target)
    except OSError as error:
        raise StorageError(f"cannot write {target}", found=error.strerror) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
