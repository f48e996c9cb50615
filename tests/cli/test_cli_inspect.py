"""``hermes-edge inspect`` on a bundle of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes_edge.manifest import read_manifest

Cli = Callable[..., tuple[int, str, str]]


def test_inspect_shows_all_parts(random_bundle: Path, cli: Cli) -> None:
    code, stdout, stderr = cli("inspect", random_bundle)
    assert (code, stderr) == (0, "")
    manifest = read_manifest(random_bundle)
    assert "random: answers are noise" in stdout
    assert "decoding a further token reads the memory's rows\n" in stdout
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


def test_inspect_as_json(random_bundle: Path, cli: Cli) -> None:
    code, stdout, stderr = cli("inspect", random_bundle, "--json")
    assert (code, stderr) == (0, "")
    document = json.loads(stdout)
    manifest = read_manifest(random_bundle)
    assert document["model_id"] == manifest.model_id
    assert document["kv_bytes_per_token"] == 2560
    assert [entry["budget_rows"] for entry in document["budgets"]] == [500, 1000, 1280]
    for entry in document["budgets"]:
        assert entry["slab_bytes"] == 2560 * (entry["budget_rows"] + 256 + 512)
        assert entry["spare_bytes"] == entry["slab_bytes"] // 10


def test_inspect_tells_static_decoding(static_bundle: Path, cli: Cli) -> None:
    code, stdout, stderr = cli("inspect", static_bundle)
    assert (code, stderr) == (0, "")
    assert "decoding a further token reads whole slabs (static)\n" in stdout


def test_random_bundle_stays_small(random_bundle: Path) -> None:
    assert sum(path.stat().st_size for path in random_bundle.iterdir()) < 3_000_000


@pytest.mark.parametrize("verb", [("verify",), ("verify", "--target", "tensorrt"), ("inspect",)])
def test_a_file_is_no_bundle(cli: Cli, random_bundle: Path, verb: tuple[str, ...]) -> None:
    file = random_bundle / "manifest.json"
    code, stdout, stderr = cli(*verb, file)
    assert (code, stdout) == (4, "")
    # The check of a whole bundle shows its progress first.
    assert stderr.endswith(
        f"error: {file} is not a bundle: required a folder with manifest.json, found a file. "
        "Make one with: hermes-edge export CHECKPOINT -o BUNDLE\n"
    )


def test_doctor_says_the_same_of_a_file(cli: Cli, random_bundle: Path) -> None:
    file = random_bundle / "manifest.json"
    code, stdout, _ = cli("doctor", "--bundle", file, "--json")
    (check,) = (c for c in json.loads(stdout)["checks"] if c["name"] == "bundle manifest.json")
    assert (code, check["status"]) == (1, "fail")
    assert check["found"] == (
        f"{file} is not a bundle: required a folder with manifest.json, found a file"
    )
