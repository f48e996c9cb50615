"""``hermes-edge export`` and ``verify``, from a random checkpoint to a checked bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from typer.testing import CliRunner

from hermes_edge.cli.app import app
from hermes_edge.export.progress import quiet_transformers
from hermes_edge.manifest import read_manifest

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of two layers without vision tower or tokenizer: its export takes seconds."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    config = Qwen2Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        max_position_embeddings=1024,
        initializer_range=0.3,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    with quiet_transformers():
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The bundle's folder, and what the export wrote to stdout and stderr."""
    bundle = tmp_path_factory.mktemp("bundles") / "tiny"
    options = ["--chunk-frames", "8", "--tokens-per-frame", "4", "--no-verify"]
    args = ["export", str(checkpoint), "-o", str(bundle), *options]
    result = CliRunner().invoke(app, args, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.stderr
    return bundle, result.stdout, result.stderr


@pytest.mark.slow
def test_export_shows_every_stage_and_the_result(exported: tuple[Path, str, str]) -> None:
    bundle, stdout, stderr = exported
    assert re.fullmatch(rf"tiny -> {bundle} \([\d,]+ B\)\n", stdout)
    assert "decoder" in stderr
    assert re.search(r"decoder\s+\d+\.\d s\s+[\d,]+ B", stderr)
    manifest = read_manifest(bundle)
    assert (manifest.chunk_frames, manifest.tokens_per_frame) == (8, 4)
    assert (manifest.precision, manifest.parity) == ("fp32", None)


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
def test_a_quantized_export_tells_its_cost(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    options = ("--dtype", "int4", "--tokens-per-frame", 4)
    code, stdout, _ = cli("export", checkpoint, "-o", bundle, *options)
    assert code == 0
    assert re.search(
        r"^int4, blocks of 32 costs: logits, root mean square error: [\d.]+ of their deviation\n"
        r"int4, blocks of 32 costs: greedy tokens that stay the same: \d+ of 16$",
        stdout,
        re.M,
    )
    code, stdout, _ = cli("inspect", bundle)
    assert code == 0
    assert re.search(r"^matrices +int4, blocks of 32$", stdout, re.M)
    assert "cost of the rounded weights, beside the original" in stdout


@pytest.mark.slow
def test_existing_bundle_is_not_replaced(
    cli: Cli, checkpoint: Path, exported: tuple[Path, str, str]
) -> None:
    code, stdout, stderr = cli("export", checkpoint, "-o", exported[0], "--tokens-per-frame", 4)
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
