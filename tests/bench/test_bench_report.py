"""One whole run on the shipped bundle: its figures fit each other and the bundle."""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from hermes_edge.bench.figures import BenchReport, ReplayFigures, spread
from hermes_edge.bench.tables import render
from hermes_edge.manifest import MANIFEST_NAME, read_manifest, sha256_of

ROOT = Path(__file__).parents[2]
BUDGET_ROWS = 512
PREFIX_ROWS = 21
CHUNK_ROWS = 256


@dataclass(frozen=True)
class Run:
    """What the command printed, wrote, and imported on the way."""

    document: dict[str, Any]
    tables: str
    stages_and_imports: str
    json_file: Path


@pytest.fixture(scope="module")
def bench_run(
    random_bundle: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """``hermes-edge bench`` in a process of its own, imports reported on stderr."""
    json_file = tmp_path_factory.mktemp("bench") / "report.json"
    program = "from hermes_edge.cli import main; main()"
    options = "--budget 512 --answer-tokens 6 --repeats 3 --chunk-repeats 2 --threads 1"
    result = subprocess.run(
        [
            *(sys.executable, "-X", "importtime", "-c", program, "bench", str(random_bundle)),
            *options.split(),
            *("--against", "transformers", "--checkpoint", str(checkpoint)),
            *("--json", str(json_file)),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    tables, _, last_line = result.stdout.rstrip("\n").rpartition("\n")
    return Run(json.loads(last_line), tables, result.stderr, json_file)


def spreads(node: Any) -> Iterator[dict[str, float]]:
    """Every spread of a document."""
    if isinstance(node, dict):
        if "median" in node:
            yield node
        for child in node.values():
            yield from spreads(child)


def test_every_time_is_positive_and_ordered(bench_run: Run) -> None:
    found = list(spreads(bench_run.document))
    assert len(found) >= 15
    for times in found:
        assert 0 <= times["minimum"] <= times["median"] <= times["maximum"]
    for name in ("hermes", "window", "full"):
        question = bench_run.document["sessions"][name]["question"]
        for stage in (question["ttft"], question["per_token"]):
            assert stage["ms"]["minimum"] > 0
            assert stage["ms"]["repeats"] == 3
            assert stage["floor"]["ms"] > 0


def test_sessions_hold_the_rows_that_they_were_asked_to(bench_run: Run) -> None:
    sessions = bench_run.document["sessions"]
    for name in ("hermes", "window"):
        assert sessions[name]["question"]["memory_rows"] == PREFIX_ROWS + BUDGET_ROWS
        assert sessions[name]["chunk"]["memory_rows"] == PREFIX_ROWS + BUDGET_ROWS
        assert sessions[name]["chunk"]["rows"] == CHUNK_ROWS
    frames = sessions["hermes"]["frames"]
    assert frames == sessions["full"]["frames"] == 2 * 16
    assert sessions["full"]["question"]["memory_rows"] == PREFIX_ROWS + frames * 16
    assert sessions["full"]["chunk"] is None


def test_only_hermes_scores(bench_run: Run) -> None:
    sessions = bench_run.document["sessions"]
    assert sessions["hermes"]["chunk"]["score_ms"]["minimum"] > 0
    assert sessions["window"]["chunk"]["score_ms"]["maximum"] == 0


def test_rates_and_shares_follow_from_the_medians(bench_run: Run) -> None:
    document = bench_run.document
    upkeep, window = document["upkeep"], document["sessions"]["window"]["chunk"]
    encode_ms = window["encode"]["ms"]["median"]
    assert window["rows_per_s"] == pytest.approx(CHUNK_ROWS / encode_ms * 1e3)
    for way in ("counted", "difference"):
        share = upkeep[f"{way}_ms"]["median"] / encode_ms
        assert upkeep[f"{way}_share"] == pytest.approx(share)
    # Two repeats: the medians are means, and means add up.
    hermes = document["sessions"]["hermes"]["chunk"]
    stages = (hermes["encode"]["ms"], hermes["score_ms"], hermes["compact_ms"])
    whole_ms = sum(stage["median"] for stage in stages)
    assert upkeep["difference_ms"]["median"] == pytest.approx(whole_ms - encode_ms)


def test_memory_is_counted_in_the_bundle_s_own_bytes(bench_run: Run, random_bundle: Path) -> None:
    memory, manifest = bench_run.document["memory"], read_manifest(random_bundle)
    capacity = bench_run.document["sessions"]["hermes"]["capacity_rows"]
    assert capacity == PREFIX_ROWS + BUDGET_ROWS + CHUNK_ROWS + 512
    slabs = capacity * manifest.decoder.kv_bytes_per_token("fp32")
    assert memory["slab_bytes"] == slabs
    assert memory["spare_bytes"] == slabs // manifest.decoder.layers
    loaded = ("vision.onnx", "decoder.onnx", "score.onnx", "compact.onnx")
    assert memory["graph_bytes"] == sum((random_bundle / name).stat().st_size for name in loaded)
    bound = memory["graph_bytes"] + slabs + memory["spare_bytes"] + 500_000_000
    assert memory["bound_bytes"] == bound
    assert memory["over_bound_bytes"] == memory["peak_resident_bytes"] - bound
    assert slabs < memory["resident_loaded_bytes"] < memory["peak_resident_bytes"]
    assert memory["resident_filled_bytes"] <= memory["peak_resident_bytes"]


def test_peak_is_read_before_torch_comes_in(bench_run: Run) -> None:
    lines = bench_run.stages_and_imports.splitlines()
    torch = next(i for i, line in enumerate(lines) if line.endswith(" torch"))
    assert lines.index("checkpoint") < torch


def test_transformers_gives_the_same_logits_and_tokens(bench_run: Run) -> None:
    against = bench_run.document["against_transformers"]
    assert against["memory_rows"] == PREFIX_ROWS + BUDGET_ROWS
    assert against["first_logits_largest"] > 1
    assert against["first_logits_difference"] < 1e-3
    assert against["equal_greedy_tokens"] == 6
    for stage in ("ttft", "per_token"):
        ratio = against[f"their_{stage}_ms"]["median"] / against[f"{stage}_ms"]["median"]
        assert against[f"{stage}_ratio"] == pytest.approx(ratio)


def test_document_says_what_was_measured_and_where(bench_run: Run, random_bundle: Path) -> None:
    document, manifest = bench_run.document, read_manifest(random_bundle)
    assert document["bundle"] == {
        "path": str(random_bundle),
        "model_id": manifest.model_id,
        "family": "llava_onevision",
        "precision": "fp32",
        "quantization": None,
        "static_decode": False,
        "random_weights": True,
        "manifest_sha256": sha256_of(random_bundle / MANIFEST_NAME),
    }
    assert document["settings"]["threads"] == 1
    assert document["settings"]["budget_rows"] == BUDGET_ROWS
    machine = document["machine"]
    assert machine["processor"] and machine["usable_cores"] >= 1
    assert machine["memory_bytes"] > document["memory"]["peak_resident_bytes"]
    assert set(machine["versions"]) >= {"python", "numpy", "onnxruntime", "torch", "transformers"}


def test_commit_is_that_of_the_checkout(bench_run: Run) -> None:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    assert bench_run.document["machine"]["git_commit"] == (head or None)


def test_json_file_is_the_last_line(bench_run: Run) -> None:
    assert json.loads(bench_run.json_file.read_text()) == bench_run.document


def test_tables_show_the_medians(bench_run: Run) -> None:
    ttft = bench_run.document["sessions"]["hermes"]["question"]["ttft"]["ms"]
    (line,) = [line for line in bench_run.tables.splitlines() if "hermes: first token" in line]
    shown = float(line.split("│")[3])
    assert shown == pytest.approx(ttft["median"], rel=0.05)
    assert "scoring and compaction of a chunk" in bench_run.tables
    assert "DynamicCache" in bench_run.tables


def test_spread_is_of_the_samples() -> None:
    samples = [3.0, 1.0, 2.0, 10.0]
    result = spread(samples)
    assert (result.minimum, result.maximum, result.repeats) == (1.0, 10.0, 4)
    assert result.median == statistics.median(samples)


def test_replayed_steps_are_told_where_something_replays(bench_run: Run) -> None:
    assert bench_run.document["replay"] is None
    assert bench_run.document["bundle"]["static_decode"] is False
    assert "CUDA graph" not in bench_run.tables
    report = TypeAdapter(BenchReport).validate_python(bench_run.document)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render(replace(report, replay=ReplayFigures(3, 2, 40))))
    told = "single rows: 3 run plainly, 2 captured, 40 launched as a CUDA graph"
    assert told in " ".join(console.export_text().split())
