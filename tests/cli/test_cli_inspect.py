"""``hermes-edge inspect`` and ``demo`` on the bundle in the box."""

from __future__ import annotations

import json
from collections.abc import Callable

from hermes_edge.manifest import read_manifest
from hermes_edge.shipped import TINY_BUNDLE

Cli = Callable[..., tuple[int, str, str]]


def test_inspect_shows_all_parts(cli: Cli) -> None:
    code, stdout, stderr = cli("inspect", TINY_BUNDLE)
    assert (code, stderr) == (0, "")
    manifest = read_manifest(TINY_BUNDLE)
    assert "random: answers are noise" in stdout
    assert "2,560 B of keys and values" in stdout
    for record in manifest.files:
        assert record.path in stdout
        assert record.sha256[:16] in stdout
    for name in manifest.graphs:
        assert f"{name}.onnx" in stdout
    assert manifest.parity is not None
    for check in manifest.parity.checks:
        assert check.name in stdout
    assert "FAIL" not in stdout


def test_inspect_as_json(cli: Cli) -> None:
    code, stdout, stderr = cli("inspect", TINY_BUNDLE, "--json")
    assert (code, stderr) == (0, "")
    document = json.loads(stdout)
    manifest = read_manifest(TINY_BUNDLE)
    assert document["model_id"] == manifest.model_id
    assert document["kv_bytes_per_token"] == 2560
    assert [entry["budget_rows"] for entry in document["budgets"]] == [500, 1000, 1280]
    for entry in document["budgets"]:
        assert entry["slab_bytes"] == 2560 * (entry["budget_rows"] + 256 + 512)
        assert entry["spare_bytes"] == entry["slab_bytes"] // 10


def test_demo_shows_a_memory_that_stays_flat(cli: Cli) -> None:
    code, stdout, stderr = cli("demo")
    assert code == 0
    assert stderr == "warning: the weights of this bundle are random, so the answers are noise\n"
    lines = [line for line in stdout.splitlines() if " ms " in line]
    assert [line.split()[0] for line in lines] == ["0:30", "1:15", "1:59"]
    # From the right: resident and its unit, slabs and its unit, rows, tokens seen.
    columns = [line.split()[-6:] for line in lines]
    assert [int(column[0].replace(",", "")) for column in columns] == [496, 1216, 1920]
    slabs = {(column[2], column[3]) for column in columns}
    assert len(slabs) == 1
    assert max(int(column[1]) for column in columns) <= 13 + 256 + 64
    assert "were allocated once" in stdout


def test_random_bundle_stays_small() -> None:
    assert sum(path.stat().st_size for path in TINY_BUNDLE.iterdir()) < 3_000_000
