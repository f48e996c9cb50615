"""The hardware side of ``hermes-edge doctor``: board, driver, TensorRT, swap, power, cameras."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from hermes_edge.cli.checks import Check
from hermes_edge.cli.output import size
from hermes_edge.process import kernel_bytes

# A driver in trouble lets nvidia-smi hang.
_COMMAND_TIMEOUT_S = 10
_LOW_SHARED_BYTES = 10 << 30

# Releases of Jetson Linux (L4T) by the JetPack that brings them.
_JETPACKS = {"36.4": "6.1 or 6.2", "38.2": "7.0", "38.4": "7.1", "39.2": "7.2"}
_OLDEST_L4T = 36


def run_command(command: Sequence[str]) -> str | None:
    """A command's output; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@dataclass(frozen=True, slots=True)
class Machine:
    """Where facts come from: the kernel's files below ``root``, and commands."""

    root: Path = Path("/")
    run: Callable[[Sequence[str]], str | None] = field(default=run_command)

    def read(self, path: str) -> str | None:
        """A file's text; None where there is none."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        except OSError:
            return None

    @property
    def is_jetson(self) -> bool:
        """Whether the board is one."""
        return self.read("etc/nv_tegra_release") is not None

    @property
    def has_driver(self) -> bool:
        """Whether NVIDIA's driver is there."""
        return self.is_jetson or self.read("proc/driver/nvidia/version") is not None


def examine_hardware(machine: Machine) -> Iterator[Check]:
    """All checks of the hardware, one after the other."""
    yield _board(machine) if machine.is_jetson else _driver(machine)
    if machine.has_driver:
        yield from _gpus(machine)
        yield check_tensorrt(machine.is_jetson)
    yield _swap(machine)
    if machine.is_jetson:
        yield _power_mode(machine)
    yield _cameras(machine)


def _board(machine: Machine) -> Check:
    text = machine.read("etc/nv_tegra_release") or ""
    model = machine.read("proc/device-tree/model") or "Jetson"
    match = re.search(r"R(\d+) \(release\), REVISION: (\d+)(?:\.(\d+))?", text)
    if match is None:
        return Check("board", "warn", f"{model}, with a release that cannot be read: {text[:80]!r}")
    major, minor = match[1], match[2]
    known = _JETPACKS.get(f"{major}.{minor}")
    found = f"{model}, Jetson Linux {'.'.join(part for part in match.groups() if part)}"
    if int(major) < _OLDEST_L4T:
        fix = "flash JetPack 6.2 or 7.2 with NVIDIA's SDK Manager"
        return Check("board", "fail", f"{found}: too old", fix)
    if known is None:
        return Check(
            "board", "warn", f"{found}; known are those of JetPack {_listed(_JETPACKS.values())}"
        )
    return Check("board", "pass", f"{found} (JetPack {known})")


def _driver(machine: Machine) -> Check:
    text = machine.read("proc/driver/nvidia/version")
    if text is None:
        return Check("NVIDIA driver", "warn", "none: engines run on the CPU")
    match = re.search(r"Kernel Module(?: for \w+)?\s+([\d.]+)", text)
    return Check("NVIDIA driver", "pass", match[1] if match else text.splitlines()[0])


def gpu_facts(machine: Machine) -> list[tuple[str, str, str]] | None:
    """Name, compute capability and memory of every GPU; None where nvidia-smi does not answer.

    Jetson's nvidia-smi knows the last two not: ``[N/A]``.
    """
    wanted = "--query-gpu=name,compute_cap,memory.total"
    output = machine.run(("nvidia-smi", wanted, "--format=csv,noheader"))
    if output is None:
        return None
    rows = ((part.strip() for part in (line + ",,").split(",")) for line in output.splitlines())
    return [(name, capability, memory) for name, capability, memory, *_ in rows]


def _gpus(machine: Machine) -> Iterator[Check]:
    gpus = gpu_facts(machine)
    if gpus is None:
        if not machine.is_jetson:
            fix = "nvidia-smi (it says why), then restart, or reinstall the driver"
            yield Check("gpu", "fail", "the driver does not answer", fix)
        return
    for name, capability, memory in gpus:
        facts = [f"compute capability {capability}", memory]
        found = ", ".join([name, *(fact for fact in facts if "[N/A]" not in fact)])
        yield Check("gpu", "pass", found)


def tensorrt_fix(is_jetson: bool) -> str:
    """What installs TensorRT."""
    if is_jetson:
        return (
            "sudo apt install python3-libnvinfer, and a virtual environment made with "
            "--system-site-packages"
        )
    return "pip install tensorrt"


def check_tensorrt(is_jetson: bool) -> Check:
    """Whether TensorRT's bindings can be imported, libraries included."""
    install = tensorrt_fix(is_jetson)
    try:
        module = import_module("tensorrt")
    except ModuleNotFoundError:
        return Check("tensorrt", "warn", "not installed: engines run in ONNX Runtime", install)
    # Libraries that are missing or of another version.
    except (ImportError, OSError, RuntimeError) as error:
        return Check("tensorrt", "fail", f"cannot be imported: {error}", install)
    return Check("tensorrt", "pass", str(getattr(module, "__version__", "present")))


def _swap(machine: Machine) -> Check:
    swap = kernel_bytes(machine.root / "proc/meminfo", "SwapTotal")
    total = kernel_bytes(machine.root / "proc/meminfo", "MemTotal")
    if swap is None or total is None:
        return Check("swap", "warn", "this system does not tell")
    if machine.is_jetson and swap == 0 and total < _LOW_SHARED_BYTES:
        fix = "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && "
        fix += "sudo mkswap /swapfile && sudo swapon /swapfile"
        return Check("swap", "warn", "none: building an engine may be killed for memory", fix)
    return Check("swap", "pass", f"{size(swap)} beside {size(total)} of memory")


def _power_mode(machine: Machine) -> Check:
    output = machine.run(("nvpmodel", "-q"))
    match = re.search(r"NV Power Mode:\s*(\S+)", output or "")
    if match is None:
        return Check("power mode", "warn", "unknown", "sudo nvpmodel -q")
    if match[1].startswith("MAXN"):
        return Check("power mode", "pass", match[1])
    fix = "sudo nvpmodel -m 0 && sudo jetson_clocks, where the supply and the cooling allow it"
    return Check("power mode", "warn", f"{match[1]}: slower than the board can be", fix)


def _cameras(machine: Machine) -> Check:
    nodes = sorted((machine.root / "dev").glob("video*"))
    if not nodes:
        return Check("cameras", "pass", "none: files and folders can be streamed")
    closed = [node.name for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        fix = 'sudo usermod -aG video "$USER", then log in again'
        return Check("cameras", "warn", f"no permission for {_listed(closed)}", fix)
    return Check("cameras", "pass", _listed(node.name for node in nodes))


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
