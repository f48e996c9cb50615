"""``hermes-edge doctor``: this machine as it is, and machines that lack something."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from hermes_edge.cli.checks import Check
from hermes_edge.cli.doctor import check_onnxruntime
from hermes_edge.shipped import TINY_BUNDLE

Cli = Callable[..., tuple[int, str, str]]


def test_this_machine_is_healthy(cli: Cli) -> None:
    code, stdout, stderr = cli("doctor", "--json")
    document = json.loads(stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert (code, stderr, document["healthy"]) == (0, "", True)
    assert checks["engine on cpu"] == {
        "name": "engine on cpu",
        "status": "pass",
        "found": "usable",
        "fix": None,
    }
    assert checks["numpy"]["found"] == version("numpy")
    assert {"python", "system", "torch", "memory", "disk"} <= set(checks)


def test_lines_for_people(cli: Cli) -> None:
    code, stdout, _ = cli("doctor")
    assert code == 0
    lines = [line for line in stdout.splitlines() if "mend with" not in line]
    assert {line.split()[0] for line in lines} <= {"pass", "warn"}
    assert f"numpy                  {version('numpy')}" in stdout


def test_no_onnxruntime() -> None:
    assert list(check_onnxruntime(lambda name: None, TINY_BUNDLE)) == [
        Check("onnxruntime", "fail", "not installed", "pip install 'hermes-edge[cpu]'")
    ]


def test_both_onnxruntimes_overwrite_each_other() -> None:
    assert list(check_onnxruntime(lambda name: "1.20", TINY_BUNDLE)) == [
        Check(
            "onnxruntime",
            "fail",
            "onnxruntime 1.20 and onnxruntime-gpu 1.20 overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'hermes-edge[cpu]'",
        )
    ]


def test_provider_that_cannot_be_used_is_a_warning_for_cuda() -> None:
    # The CPU wheel here stands in for a GPU wheel whose provider cannot be created.
    gpu_only = {"onnxruntime-gpu": "1.20"}
    wheel, cpu, cuda = check_onnxruntime(gpu_only.get, TINY_BUNDLE)
    assert wheel == Check("onnxruntime", "pass", "onnxruntime-gpu 1.20")
    assert (cpu.status, cuda.status) == ("pass", "warn")
    assert "required CUDAExecutionProvider" in cuda.found


def test_engine_that_cannot_be_made_on_the_cpu_fails(tmp_path: Path) -> None:
    _, cpu = check_onnxruntime({"onnxruntime": "1.20"}.get, tmp_path / "gone")
    assert (cpu.status, cpu.fix) == ("fail", "pip install --force-reinstall 'hermes-edge[cpu]'")
    assert cpu.found.startswith(f"{tmp_path / 'gone'} is not a bundle")


def test_missing_core_package_is_named_with_its_command(tmp_path: Path) -> None:
    # A broken cv2 in front of the real one, as a half-removed package leaves it.
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1 is missing')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "from hermes_edge.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "cannot be imported: libGL.so.1 is missing" in done.stdout
    assert "mend with: pip install --force-reinstall opencv-python-headless" in done.stdout
