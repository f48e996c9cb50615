"""The machine: what it is, what it reaches, and how much memory this process takes of it."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import numpy as np

import hermes_edge
from hermes_edge.bench.figures import MachineFigures, RateFigures

_PACKAGES = ("hermes-edge", "numpy", "onnxruntime", "torch", "transformers")
_MATRIX_SIDE = 2048
_READ_BYTES = 256 << 20
_RATE_REPEATS = 5


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_machine() -> MachineFigures:
    """Processor, memory, versions, and the commit where the package runs from a checkout."""
    return MachineFigures(
        processor=_processor(),
        usable_cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=platform.platform(),
        versions={"python": platform.python_version(), **_versions()},
        git_commit=_git_commit(),
    )


def resident_bytes() -> tuple[int, int]:
    """Resident memory of this process, now and at its peak.

    Where the system has no ``/proc``, both are the peak.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        # Kilobytes, but on macOS bytes.
        unit = 1 if platform.system() == "Darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return peak, peak
    kilobytes = {line.partition(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    return int(kilobytes["VmRSS"]) * 1024, int(kilobytes["VmHWM"]) * 1024


def measure_rates() -> RateFigures:
    """Best of a few runs in numpy, on all its threads: a product of square matrices, and one of a
    matrix with a vector, which does little but read the matrix."""
    random = np.random.default_rng(0)
    square = random.standard_normal((_MATRIX_SIDE, _MATRIX_SIDE), dtype=np.float32)
    tall = np.ones((_READ_BYTES // 4 // _MATRIX_SIDE, _MATRIX_SIDE), dtype=np.float32)
    product = np.empty_like(square)
    column = np.empty(len(tall), dtype=np.float32)
    square_s = _best_s(lambda: np.matmul(square, square, out=product))
    read_s = _best_s(lambda: np.matmul(tall, square[0], out=column))
    return RateFigures(
        sgemm_gflop_per_s=2 * _MATRIX_SIDE**3 / square_s / 1e9,
        read_gbyte_per_s=tall.nbytes / read_s / 1e9,
    )


def _best_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_RATE_REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    installed = {package.name: package.version for package in distributions()}
    return {name: installed.get(name, "not installed") for name in _PACKAGES}


def _git_commit() -> str | None:
    folder = Path(hermes_edge.__file__).parents[1]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return run.stdout.strip() or None
