"""Memory of this process and of the machine, read from the kernel."""

from __future__ import annotations

import resource
from pathlib import Path


def resident_bytes() -> int:
    """Resident memory now; the peak so far where the kernel has no ``/proc``."""
    return kernel_bytes(Path("/proc/self/status"), "VmRSS") or (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )


def available_bytes() -> int | None:
    """Memory that can be had without swapping, within a container's limit; None if unknown."""
    free = kernel_bytes(Path("/proc/meminfo"), "MemAvailable")
    limit, used = (_number(Path(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current"))
    if limit is None or used is None:
        return free
    return max(limit - used, 0) if free is None else min(free, max(limit - used, 0))


def kernel_bytes(path: Path, name: str) -> int | None:
    """A field of a file such as ``/proc/meminfo``, None where there is no such file or field."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(values[0]) * 1024 if values else None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
