"""``hermes-edge verify --target``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hermes_edge.shipped import TINY_BUNDLE

Cli = Callable[..., tuple[int, str, str]]


def test_a_bundle_that_suits(cli: Cli) -> None:
    code, stdout, stderr = cli("verify", TINY_BUNDLE, "--target", "tensorrt")
    assert (code, stderr) == (0, "")
    assert stdout == f"{TINY_BUNDLE}: nothing that TensorRT 10.3 is known to refuse\n"


def test_a_bundle_that_does_not(cli: Cli, random_bundle: Path) -> None:
    code, stdout, stderr = cli("verify", random_bundle, "--target", "tensorrt=10.16")
    assert code == 4
    assert "what TensorRT 10.16 would refuse" in stdout
    assert "required rows of a multiple of 256 bytes, found 128" in stdout
    assert stderr == (
        f"error: {random_bundle} does not suit TensorRT 10.16: found 1 findings. "
        "Export with another --opset, name a newer target, or run it in ONNX Runtime\n"
    )


def test_the_same_as_json(cli: Cli, random_bundle: Path) -> None:
    code, stdout, _ = cli("verify", random_bundle, "--target", "tensorrt", "--json")
    assert code == 4
    (finding,) = json.loads(stdout)["findings"]
    assert finding["graph"] == "slabs"


def test_an_unknown_target(cli: Cli) -> None:
    code, stdout, stderr = cli("verify", TINY_BUNDLE, "--target", "onnx")
    assert (code, stdout) == (2, "")
    assert stderr == ("error: unknown target: required tensorrt, or tensorrt=10.3, found 'onnx'\n")


def test_two_checks_at_once(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("verify", TINY_BUNDLE, "--target", "tensorrt", "--against", tmp_path)
    assert outcome == (2, "", "error: two checks: required --against or --target, found both\n")
