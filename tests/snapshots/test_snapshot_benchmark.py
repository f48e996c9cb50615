"""The script that measures saves runs from end to end, at a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_what_a_save_costs_is_measured(random_bundle: Path) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "benchmarks/snapshots.py", str(random_bundle)),
            *("--budget", "300", "--repeats", "2", "--threads", "1"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["rows"] == 300 + 21
    assert figures["file_bytes"] > 321 * 10 * 2 * 32 * 4
    assert 0 < figures["pause_ms"] <= figures["longest_pause_ms"] < figures["total_ms"] * 10
    assert min(figures.values()) > 0
