"""``hermes-edge plan``."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

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
            "unknown --reserve: required 0, or bytes such as 64MiB or 0.5GiB, found '7'",
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
            ("--device", "l4", "--tokens-per-frame", -7),
            "--tokens-per-frame does not fit hermes-tiny: required 16, or none given, found -7",
        ),
        (
            ("--device", "l4", "--dtype", "int8", "--block", 32),
            "--block says nothing here: required --dtype int4 beside it, found --dtype int8",
        ),
    ):
        code, stdout, stderr = cli("plan", TINY_BUNDLE, *SMALL, *options)
        assert (code, stdout, stderr) == (2, "", f"error: {message}\n")


def test_a_chunk_that_leaves_nothing_for_the_budget(cli: Cli) -> None:
    outcome = cli("plan", TINY_BUNDLE, "--device", "l4", "--chunk-frames", 1_000_000)
    assert outcome == (
        7,
        "",
        "error: nothing is left for the budget: required prefix, reserve, open chunk and a budget "
        "of at least a chunk within 2048 positions, found prefix 13, chunk 16000000, reserve 512. "
        "Lower chunk_frames\n",
    )


def test_memory_and_time_are_turned_both(cli: Cli) -> None:
    slow = ("--device", "0.16GiB:10GB/s:0.001TFLOPS", "--streams", 30, *SMALL)
    code, stdout, stderr = cli("plan", TINY_BUNDLE, *slow, "--json")
    knobs = json.loads(stdout)["knobs"]
    assert code == 7
    assert len(knobs["memory"]) == 3
    assert stderr.endswith(f"Turn: {', or '.join(knobs['memory'])}; and {knobs['time']}\n")


def test_nothing_reserved(cli: Cli) -> None:
    for zero in ("0", "0GiB", "0.0 MiB"):
        args = ("--device", "orin-nano-8gb", *SMALL, "--reserve", zero, "--json")
        code, stdout, _ = cli("plan", TINY_BUNDLE, *args)
        assert (code, json.loads(stdout)["bytes"]["reserve"]) == (0, 0)


def test_blocks_of_nothing(cli: Cli) -> None:
    args = ("--device", "l4", "--dtype", "int4", "--block", 0)
    assert cli("plan", TINY_CHECKPOINT, *args) == (
        2,
        "",
        "error: unknown quantization: required int8, or int4 in blocks of 32 or 128, "
        "found int4, blocks of 0\n",
    )


def test_a_prefix_that_nothing_tells_is_assumed(cli: Cli, tmp_path: Path) -> None:
    shutil.copy(TINY_CHECKPOINT / "config.json", tmp_path)
    args = ("--device", "l4", *SMALL)
    line = "No tokenizer is there to tell the prefix: 14 rows, assumed.\n"
    code, stdout, _ = cli("plan", tmp_path, *args)
    assert code == 0 and line in stdout
    code, stdout, _ = cli("plan", TINY_CHECKPOINT, *args)
    assert code == 0 and line not in stdout
    document = json.loads(cli("plan", tmp_path, *args, "--json")[1])
    assert document["prefix"] == {"tokens": 14, "assumed": True}
