"""The soak script runs from end to end, small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_soak_script_at_a_small_size(tmp_path: Path) -> None:
    target, picture = tmp_path / "soak.json", tmp_path / "soak.png"
    options = "--frames 150 --fps 30 --cycle 8"
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/soak.py", *options.split()),
            *("--json", str(target), "--plot", str(picture)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told, document = json.loads(done.stdout), json.loads(target.read_text())
    assert told["exit_code"] == document["exit_code"] == 0
    assert document["totals"]["used"] >= 150
    assert document["snapshots_left"] >= 1
    assert len(document["tenths"]) == 10
    assert document["samples"][-1]["reconnects"] >= 1
    assert all(0 < sample["yardstick_ms"] < 1e3 for sample in document["samples"])
    assert "lost: " in done.stderr
    assert picture.stat().st_size > 10_000
