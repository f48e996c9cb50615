"""Boards as their kernels describe them, in files of the form that they have there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hermes_edge.cli.checks import Check
from hermes_edge.cli.hardware import Machine, check_tensorrt, examine_hardware, run_command

RELEASE = "# R{} (release), REVISION: {}, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
ORIN_NANO = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0"
DRIVER = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n"
    "GCC version:  gcc version 12.3.0\n"
)
OUTPUTS = {
    "nvpmodel": "NV Power Mode: MAXN_SUPER\n2\n",
    "nvidia-smi": "NVIDIA GeForce RTX 4090, 8.9, 24564 MiB\n",
}


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def examine(root: Path, outputs: dict[str, str] | None = None) -> dict[str, Check]:
    def run(command: Sequence[str]) -> str | None:
        return (OUTPUTS if outputs is None else outputs).get(command[0])

    return {check.name: check for check in examine_hardware(Machine(root, run))}


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    """An Orin Nano with JetPack 6.2, without swap or camera."""
    write(tmp_path, "etc/nv_tegra_release", RELEASE.format(36, "4.3"))
    write(tmp_path, "proc/device-tree/model", ORIN_NANO)
    write(tmp_path, "proc/meminfo", "MemTotal:        7802668 kB\nSwapTotal:             0 kB\n")
    return tmp_path


@pytest.fixture
def desktop(tmp_path: Path) -> Path:
    write(tmp_path, "proc/driver/nvidia/version", DRIVER)
    write(tmp_path, "proc/meminfo", "MemTotal: 65000000 kB\nSwapTotal: 0 kB\n")
    return tmp_path


def test_a_jetson(jetson: Path) -> None:
    checks = examine(jetson)
    assert checks["board"] == Check(
        "board",
        "pass",
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit, Jetson Linux 36.4.3 "
        "(JetPack 6.1 or 6.2)",
    )
    assert checks["power mode"] == Check("power mode", "pass", "MAXN_SUPER")
    assert checks["swap"].status == "warn"
    assert checks["swap"].fix is not None and "mkswap" in checks["swap"].fix
    assert "NVIDIA driver" not in checks


@pytest.mark.parametrize(
    ("release", "status", "ends"),
    [
        (RELEASE.format(39, "2"), "pass", "Jetson Linux 39.2 (JetPack 7.2)"),
        (RELEASE.format(35, "4.1"), "fail", "Jetson Linux 35.4.1: too old"),
        (RELEASE.format(40, "1.0"), "warn", "known are those of JetPack 6.1 or 6.2, 7.0, 7.1, 7.2"),
        ("?", "warn", "with a release that cannot be read: '?'"),
    ],
)
def test_releases(jetson: Path, release: str, status: str, ends: str) -> None:
    write(jetson, "etc/nv_tegra_release", release)
    board = examine(jetson)["board"]
    assert board.status == status
    assert board.found.endswith(ends)


def test_a_power_mode_below_the_best(jetson: Path) -> None:
    checks = examine(jetson, {"nvpmodel": "NV Power Mode: 15W\n0\n"})
    assert checks["power mode"].status == "warn"
    assert checks["power mode"].found == "15W: slower than the board can be"
    assert examine(jetson, {})["power mode"].found == "unknown"


def test_a_desktop(desktop: Path) -> None:
    checks = examine(desktop)
    assert checks["NVIDIA driver"] == Check("NVIDIA driver", "pass", "550.54.14")
    assert checks["gpu"].found == ("NVIDIA GeForce RTX 4090, compute capability 8.9, 24564 MiB")
    assert checks["swap"].status == "pass"
    assert "power mode" not in checks


def test_a_driver_that_does_not_answer(desktop: Path) -> None:
    gpu = examine(desktop, {})["gpu"]
    assert (gpu.status, gpu.found) == ("fail", "the driver does not answer")


def test_no_gpu(tmp_path: Path) -> None:
    checks = examine(tmp_path)
    assert checks["NVIDIA driver"] == Check("NVIDIA driver", "warn", "none: engines run on the CPU")
    assert not {"gpu", "tensorrt", "board"} & set(checks)
    assert checks["swap"].found == "this system does not tell"


def test_cameras(tmp_path: Path) -> None:
    assert examine(tmp_path)["cameras"].found == "none: files and folders can be streamed"
    write(tmp_path, "dev/video1", "")
    write(tmp_path, "dev/video0", "")
    assert examine(tmp_path)["cameras"] == Check("cameras", "pass", "video0, video1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every camera")
def test_a_camera_without_permission(tmp_path: Path) -> None:
    write(tmp_path, "dev/video0", "")
    (tmp_path / "dev/video0").chmod(0)
    camera = examine(tmp_path)["cameras"]
    assert camera.status == "warn"
    assert camera.found == "no permission for video0"


def test_tensorrt_that_is_missing_or_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = check_tensorrt(is_jetson=True)
    assert (missing.status, missing.found) == (
        "warn",
        "not installed: engines run in ONNX Runtime",
    )
    assert missing.fix is not None and "python3-libnvinfer" in missing.fix
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: no such file')\n")
    broken = check_tensorrt(is_jetson=False)
    assert (broken.status, broken.fix) == ("fail", "pip install tensorrt")
    assert broken.found == "cannot be imported: libnvinfer.so.10: no such file"
    (tmp_path / "tensorrt.py").write_text("__version__ = '10.16.1.11'\n")
    # The broken one left no module behind.
    assert "tensorrt" not in sys.modules
    assert check_tensorrt(is_jetson=False) == Check("tensorrt", "pass", "10.16.1.11")
    del sys.modules["tensorrt"]


def test_commands_that_are_missing_or_fail() -> None:
    assert run_command(("echo", "yes")) == "yes\n"
    assert run_command(("false",)) is None
    assert run_command(("no-such-command-at-all",)) is None
