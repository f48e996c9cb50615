"""The script of a visit to a GPU runs from end to end on the CPU, at a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_on_the_cpu(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    options = (
        "--device cpu --geometry tiny --precision fp32 --rows 512 --frames 16 --frames 64 "
        "--repeats 2"
    )
    result = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *options.split(), "--json", str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    document = json.loads(result.stdout.splitlines()[-1])
    assert document == json.loads(target.read_text())
    parity = document["parity"]
    assert parity["layers_with_equal_positions"] == parity["layers"] == 10
    assert parity["equal_answers"] == parity["answers"] == 6
    measured = document["geometries"]["tiny"]
    assert [count["frames"] for count in measured["flat"]] == [16, 64]
    assert len({count["slab_bytes"] for count in measured["flat"]}) == 1
    (report,) = measured["bench"]
    assert report["settings"]["device"] == "cpu"
    assert report["against_transformers"]["equal_greedy_tokens"] == 8


def test_a_gpu_that_is_not_there_is_told_in_one_line() -> None:
    """Device 63 is on no machine that this runs on."""
    result = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--device", "cuda:63"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (6, 11)
    assert result.stderr.startswith("parity\nerror: ")
    assert "Traceback" not in result.stderr
