"""The checkpoint that the shipped bundle was exported from, and one whole run against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hermes_edge.export import make_random_checkpoint

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """What the command printed, wrote, and imported on the way."""

    document: dict[str, Any]
    tables: str
    stages_and_imports: str
    json_file: Path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Equal seeds make equal checkpoints, so it need not be shipped."""
    return make_random_checkpoint(tmp_path_factory.mktemp("bench") / "tiny")


@pytest.fixture(scope="session")
def bench_run(demo_bundle: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``hermes-edge bench`` in a process of its own, imports reported on stderr."""
    json_file = tmp_path_factory.mktemp("bench") / "report.json"
    program = "from hermes_edge.cli import main; main()"
    options = "--budget 512 --answer-tokens 6 --repeats 3 --chunk-repeats 2 --threads 1"
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, "bench", str(demo_bundle)]
        + [*options.split(), "--json", str(json_file)]
        + ["--against", "transformers", "--checkpoint", str(checkpoint)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    tables, _, last_line = result.stdout.rstrip("\n").rpartition("\n")
    return Run(json.loads(last_line), tables, result.stderr, json_file)
