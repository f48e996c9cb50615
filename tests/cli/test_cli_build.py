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
            ("--device", "cpu"),
            2,
            "TensorRT runs on NVIDIA GPUs: required device cuda or cuda:N, found cpu",
        ),
        (
            ("--workspace", "7"),
            2,
            "unknown --workspace: required bytes such as 64MiB or 0.5GiB, found '7'",
        ),
        (
            ("--budget", 100),
            7,
            "the budget is smaller than a chunk: required at least 256 tokens, found 100. "
            "Raise the budget or lower chunk_frames",
        ),
        (
            ("--chunk-frames", 0),
            2,
            "chunk_frames is out of range: required at least 1, found 0",
        ),
    ):
        assert cli("build", TINY_BUNDLE, *options) == (code, "", f"error: {message}\n")
