"""``hermes-edge build`` where it cannot build."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hermes_edge.shipped import TINY_BUNDLE

Cli = Callable[..., tuple[int, str, str]]


def test_without_tensorrt(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10 is missing')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "from hermes_edge.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "build", TINY_BUNDLE, "--budget", "1000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (11, "")
    assert done.stderr.startswith(
        "error: TensorRT cannot be imported: required TensorRT 10.3 or newer with its Python "
        "bindings, found libnvinfer.so.10 is missing. On a Jetson: sudo apt install "
    )


def test_settings_out_of_range(cli: Cli) -> None:
    for options, code, message in (
        (
            ("--device", "cpu", "--budget", 1000),
            2,
            "TensorRT runs on NVIDIA GPUs: required device cuda or cuda:N, found cpu",
        ),
        (("--workspace", "7"), 2, "unknown --workspace: required such as 2GiB, found 7"),
        (
            ("--budget", 100),
            7,
            "the budget does not fit the model: required 256 (a chunk) to 1216 tokens, found 100",
        ),
    ):
        assert cli("build", TINY_BUNDLE, *options) == (code, "", f"error: {message}\n")
