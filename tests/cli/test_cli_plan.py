"""``hermes-edge plan``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from hermes_edge.runtime import Runtime
from hermes_edge.shipped import TINY_BUNDLE, TINY_CHECKPOINT

Cli = Callable[..., tuple[int, str, str]]
SMALL = ("--budget", 512, "--chunk-frames", 4, "--reserve-tokens", 96)


def test_a_plan_that_fits(cli: Cli) -> None:
    code, stdout, stderr = cli("plan", TINY_BUNDLE, "--device", "orin-nano-8gb", *SMALL)
    assert (code, stderr) == (0, "")
    assert stdout.startswith(
        "hermes-tiny (fp32) on orin-nano-8gb: 8.0 GiB, 68 GB/s, 10.2 TFLOP/s\n"
    )
    for word in ("decoder weights", "slabs", "reserve", "needed", "left", "each further token"):
        assert f" {word} " in stdout
    assert stdout.endswith("It fits.\n")


def test_the_same_as_json(cli: Cli) -> None:
    code, stdout, _ = cli("plan", TINY_CHECKPOINT, "--device", "rtx-4090", *SMALL, "--json")
    assert code == 0
    document = json.loads(stdout)
    assert document["precision"] == "fp16"
    assert document["fits"] is True
    assert sum(document["bytes"].values()) == document["needed_bytes"]
    assert document["needed_bytes"] + document["left_bytes"] == 24 << 30


def test_a_plan_that_does_not_fit_ends_with_the_knobs(cli: Cli) -> None:
    code, stdout, stderr = cli(
        *("plan", TINY_BUNDLE, "--device", "0.16GiB:10GB/s:1TFLOPS", "--streams", 30, *SMALL)
    )
    assert code == 7
    assert " left              none " in stdout
    assert re.fullmatch(
        r"error: hermes-tiny does not fit 0\.16GiB:10GB/s:1TFLOPS: required 2\d\d\.\d MiB "
        r"and \d+% of its time, found 163\.8 MiB\. Turn: --budget \d+, or an export "
        r"with --dtype fp16, or --streams \d+\n",
        stderr,
    )


def test_a_budget_that_is_not_given_is_a_session_s(cli: Cli) -> None:
    code, stdout, _ = cli("plan", TINY_BUNDLE, "--device", "rtx-4090", "--json")
    assert code == 0
    budget = json.loads(stdout)["wish"]["budget_tokens"]
    assert budget == Runtime.load(TINY_BUNDLE).session().memory().budget_rows < 4000


def test_quantized_exports(cli: Cli) -> None:
    args = ("plan", TINY_CHECKPOINT, "--device", "orin-nano-8gb", *SMALL)
    decoder_bytes = {}
    for dtype in ("fp32", "int8", "int4"):
        code, stdout, _ = cli(*args, "--dtype", dtype, "--json")
        document = json.loads(stdout)
        assert (code, document["precision"]) == (0, "fp32")
        decoder_bytes[dtype] = document["bytes"]["decoder weights"]
    assert document["quantization"] == "int4, blocks of 32"
    assert decoder_bytes["int4"] < 0.17 * decoder_bytes["fp32"]
    assert decoder_bytes["int8"] < 0.27 * decoder_bytes["fp32"]
    code, stdout, _ = cli(*args, "--dtype", "int8", "--compute", "fp16")
    assert code == 0
    assert stdout.startswith("hermes-tiny-checkpoint (int8, fp16 beside it) on orin-nano-8gb: ")


def test_this_machine_is_measured(cli: Cli) -> None:
    code, stdout, _ = cli("plan", TINY_BUNDLE, "--device", "this", *SMALL, "--json")
    assert code == 0
    device = json.loads(stdout)["device"]
    assert device["gbyte_per_s"] > 0.5
    assert device["tflop_per_s"] > 0.001


def test_bad_values(cli: Cli) -> None:
    for options, message in (
        (
            ("--device", "l4", "--frame-size", "wide"),
            "unknown --frame-size: required such as 1920x1080, found wide",
        ),
        (
            ("--device", "l4", "--chunk-frames", 0),
            "chunk_frames is out of range: required at least 1, found 0",
        ),
        (
            ("--device", "l4", "--reserve", "7"),
            "unknown --reserve: required bytes such as 64MiB or 0.5GiB, found '7'",
        ),
        (
            ("--device", "l4", "--slice-workspace", "0MiB"),
            "unknown --slice-workspace: required bytes such as 64MiB or 0.5GiB, found '0MiB'",
        ),
        (
            ("--device", "l4", "--compute", "fp16"),
            "--compute says nothing here: required --dtype int8 or int4 beside it, "
            "found --dtype fp16",
        ),
        (
            ("--device", "l4", "--dtype", "int8", "--block", 32),
            "--block says nothing here: required --dtype int4 beside it, found --dtype int8",
        ),
    ):
        code, stdout, stderr = cli("plan", TINY_BUNDLE, *SMALL, *options)
        assert (code, stdout, stderr) == (2, "", f"error: {message}\n")
