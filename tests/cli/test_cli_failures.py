"""A failure of ``run`` is read once: in the log when it comes, or as the error at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., tuple[int, str, str]]

FULL = ("--policy", "full", "--budget", 80, "--fps", 1, "--threads", 1)
TOO_LONG = "the question does not fit the reserve: required question and answer within 512 tokens"


def test_of_several_streams_the_log_says_why(random_bundle: Path, cli: Cli, video: Path) -> None:
    args = ("run", f"door={video}", f"yard={video}", "--bundle", random_bundle, *FULL)
    code, _, stderr = cli(*args)
    assert code == 7
    for name in ("door", "yard"):
        assert stderr.count(f"ERROR service: {name}: the memory is full and the policy full") == 1
    assert stderr.count("the memory is full") == 2
    assert stderr.splitlines()[-1] == (
        "error: not every stream did what it was asked: found door, yard. The lines above say why"
    )


def test_of_one_stream_the_error_says_why(random_bundle: Path, cli: Cli, video: Path) -> None:
    code, _, stderr = cli("run", video, "--bundle", random_bundle, *FULL)
    assert (code, stderr.count("\n")) == (7, 1)
    assert stderr.startswith("error: the memory is full and the policy full never evicts: ")


@pytest.mark.parametrize("others", [0, 1])
def test_a_question_that_a_live_stream_cannot_be_asked(
    random_bundle: Path, cli: Cli, serve_http: Callable[..., Any], video: Path, others: int
) -> None:
    server = serve_http(fps=10)
    code, _, stderr = cli(
        *("run", f"door={server.url}", *[video] * others, "--bundle", random_bundle),
        *("--chunk-frames", 4, "--fps", 5, "--threads", 1, "--max-tokens", 600),
        *("--ask", "door@0:01 What?", "--log-json"),
    )
    assert code == 9
    told = [json.loads(line) for line in stderr.splitlines()]
    why = [line for line in told if TOO_LONG in line["message"]]
    assert [(line["level"], line["part"]) for line in why] == [("warning", "streams")]
    assert stderr.count(TOO_LONG) == 1
    assert told[-1]["message"] == (
        "not every stream did what it was asked: found door. The lines above say why"
    )


def test_snapshots_that_are_all_damaged(
    random_bundle: Path, cli: Cli, video: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    for second in range(2):
        (folder / f"shapes-20261125T12000{second}.000Z.safetensors").write_text("none")
    kept = ("--snapshots", folder, "--chunk-frames", 4, "--threads", 1)
    code, _, stderr = cli("run", video, "--bundle", random_bundle, *kept)
    assert code == 12
    assert [line.partition(":")[0] for line in stderr.splitlines()] == ["error"]
    assert stderr.count("is not a snapshot") == 2
