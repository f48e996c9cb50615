"""``hermes-edge export`` and ``verify``, from a random checkpoint to a checked bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hermes_edge.cli import app
from hermes_edge.export import make_random_checkpoint
from hermes_edge.manifest import read_manifest

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny, random weights."""
    return make_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", "tiny")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The bundle's folder, and what the export wrote to stdout and stderr."""
    bundle = tmp_path_factory.mktemp("bundles") / "tiny"
    args = ["export", str(checkpoint), "-o", str(bundle), "--chunk-frames", "8", "--no-verify"]
    result = CliRunner().invoke(app, args, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.stderr
    return bundle, result.stdout, result.stderr


@pytest.mark.slow
def test_export_shows_every_stage_and_the_result(exported: tuple[Path, str, str]) -> None:
    bundle, stdout, stderr = exported
    assert re.fullmatch(rf"tiny -> {bundle} \(\d\.\d MiB\)\n", stdout)
    assert "decoder" in stderr
    assert re.search(r"decoder\s+\d+\.\d s\s+1\.\d MiB", stderr)
    manifest = read_manifest(bundle)
    assert (manifest.chunk_frames, manifest.precision, manifest.parity) == (8, "fp32", None)


@pytest.mark.slow
def test_verify_against_the_checkpoint(
    cli: Cli, checkpoint: Path, exported: tuple[Path, str, str]
) -> None:
    code, stdout, _ = cli("verify", exported[0], "--against", checkpoint, "--json")
    assert code == 0
    report = json.loads(stdout)
    assert report["passed"] is True
    assert all(check["measured"] <= check["tolerance"] for check in report["checks"])
    assert "transformers" in report["reference"]


@pytest.mark.slow
def test_existing_bundle_is_not_replaced(
    cli: Cli, checkpoint: Path, exported: tuple[Path, str, str]
) -> None:
    code, stdout, stderr = cli("export", checkpoint, "-o", exported[0])
    assert (code, stdout) == (10, "")
    assert "--overwrite" in stderr


def test_missing_checkpoint(cli: Cli) -> None:
    code, stdout, stderr = cli("export", "./nowhere", "-o", "bundle")
    assert (code, stdout) == (3, "")
    assert "error: there is no folder nowhere: required" in stderr


@pytest.mark.slow
def test_verify_finds_a_changed_file(
    cli: Cli, exported: tuple[Path, str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in exported[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    table = copy / "embeddings.safetensors"
    data = table.read_bytes()
    table.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    code, stdout, stderr = cli("verify", copy)
    assert (code, stdout) == (4, "")
    assert "embeddings.safetensors: required sha256" in stderr
