"""Every bad input of ``run`` and its neighbours: one message, its exit code, no traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--ask", "What?"], 2, r"error: --ask 'What\?' has no time: required .*"),
        (["--ask", "0:01 "], 9, r"error: --ask '0:01 ' has no question: required .*"),
        (["--ask", "0:01 A?", "--fps", "0"], 2, r"error: --fps: required a number above 0, .*"),
        (
            ["--ask", "0:01 A?", "--budget", "64MB"],
            2,
            r"error: --budget: required tokens such as 4000, .* found '64MB'",
        ),
        (["--ask", "0:01 A?", "--budget", "10"], 7, r"error: the budget is smaller than a chunk.*"),
        (["--ask", "0:01 A?", "--budget", "9000"], 7, r"error: the budget does not fit the .*"),
        (["--ask", "0:01 A?", "--policy", "best"], 2, r"error: .*'?best'?.*"),
        (["--ask", "0:01 A?", "--stop", ""], 2, r"error: a stop string is empty: .*"),
        (
            ["--ask", "0:01 A?", "--max-tokens", "600"],
            9,
            r"error: the question does not fit the reserve: .*",
        ),
        (["--ask", "0:01 A?", "--config", "no.toml"], 2, r"error: cannot read .* no\.toml: .*"),
    ],
)
def test_bad_flag(run: Cli, args: list[str], code: int, message: str) -> None:
    found, stdout, stderr = run(*args)
    assert (found, stdout.count("TTFT")) == (code, 0)
    assert re.fullmatch(message + "\n", stderr), stderr


def test_no_bundle(cli: Cli, video: Path) -> None:
    assert cli("run", video, "--ask", "0:01 A?") == (
        2,
        "",
        "error: no bundle is given: required --bundle, HERMES_EDGE_BUNDLE or bundle in the "
        "settings file. Make one with: hermes-edge export CHECKPOINT -o BUNDLE\n",
    )


def test_no_video(random_bundle: Path, cli: Cli) -> None:
    code, stdout, stderr = cli("run", "no.mp4", "--bundle", random_bundle, "--ask", "0:01 A?")
    assert (code, stdout, stderr) == (8, "", "error: no.mp4 does not exist\n")


@pytest.mark.parametrize("verb", [["inspect"], ["run", "v", "--ask", "1 A?", "--bundle"]])
def test_no_such_bundle(cli: Cli, video: Path, verb: list[str]) -> None:
    args = [str(video) if arg == "v" else arg for arg in verb]
    code, stdout, stderr = cli(*args, "nowhere")
    assert (code, stdout) == (4, "")
    assert stderr == (
        "error: nowhere is not a bundle: required a folder with manifest.json, found no such "
        "folder. Make one with: hermes-edge export CHECKPOINT -o BUNDLE\n"
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run"], "Missing argument"),
        (["run", "v.mp4", "--ask", "1 A?", "--fps", "fast"], "Invalid value for '--fps'"),
        (["fly"], "No such command"),
        (["export", "c", "-o", "b", "--dtype", "int3"], "Invalid value"),
        (["run", "v.mp4", "--ask", "1 \udcff?"], r"an argument is not UTF-8: 1 \udcff?"),
        (["run", "rtsp://u:s3cret\udcff@h/s"], "an argument is not UTF-8: rtsp://***@h/s "),
        # Where the verb was forgotten, or is another one.
        (["rtsp://u:s3cret@h/s"], "No such command 'rtsp://***@h/s'."),
        (["snapshot", "rtsp://u:s3cret@h/s"], "No such command 'rtsp://***@h/s'."),
        (["inspect", "b", "rtsp://u:s3cret@h/s"], "(rtsp://***@h/s)"),
        (["export", "c", "-o", "b", "--dtype", "rtsp://u:s3cret@h/s"], "'rtsp://***@h/s'"),
    ],
)
def test_usage_errors_are_2(cli: Cli, args: list[str], words: str) -> None:
    code, stdout, stderr = cli(*args)
    assert (code, stdout) == (2, "")
    assert words in stderr
    assert "s3cret" not in stderr


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, "hermes-edge 0.1.0\n", "")


def test_the_package_is_a_command_too() -> None:
    command = [sys.executable, "-m", "hermes_edge", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hermes-edge 0.1.0\n", "")


def test_every_verb_has_help(cli: Cli) -> None:
    verbs = ("export", "verify", "inspect", "run", "demo", "doctor", "bench", "recall")
    listed = cli("--help")[1]
    for verb in verbs:
        assert re.search(rf"^[│ ]*{verb} ", listed, re.M)
        code, stdout, stderr = cli(verb, "--help")
        assert (code, stderr) == (0, "")
        assert f"{verb} [OPTIONS]" in stdout
