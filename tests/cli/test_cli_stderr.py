"""What ``hermes-edge run`` writes to stderr: documents alone with ``--log-json``, and into a file
where stderr is one, also beside a table."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-c", "from hermes_edge.cli import main; main()", "run"]
BRIEF = ("--max-tokens", "2", "--threads", "1")


def run(*args: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--fps", "0"], 2, "--fps: required a number above 0"),
        (["--bundle", "nowhere"], 4, "nowhere is not a bundle"),
        (["--ask", "0:01 A?", "--max-tokens", "999"], 9, "the question does not fit the reserve"),
        (["rtsp://user:s3cret@127.0.0.1:99999/s"], 8, "rtsp://***@127.0.0.1:99999/s is not"),
    ],
)
def test_the_error_that_ends_a_run_is_a_document(
    random_bundle: Path, video: Path, args: list[str], code: int, message: str
) -> None:
    done = run(video, "--bundle", random_bundle, "--log-json", *args)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, lines[-1]["level"], lines[-1]["part"]) == (code, "critical", "run")
    assert lines[-1]["message"].startswith(message)


def test_warnings_are_documents(random_bundle: Path, video: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.avi"
    short.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    done = run(
        *(f"door={video}", f"yard={short}", "--bundle", random_bundle, "--log-json", "--stdin"),
        *("--ask", "9:00 A?", *BRIEF),
        stdin="attic@ Who?\n",
    )
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    told = [line["message"] for line in lines if line["level"] == "warning"]
    for part in (
        "a question is for an unknown stream: required door or yard, found 'attic'",
        "the question for 9:00 is asked there",
        f"{short} broke off after",
        "the weights of this bundle are random",
    ):
        assert any(part in text for text in told), told
    assert {line["part"] for line in lines if line["level"] == "warning"} == {"run"}


def test_log_lines_go_into_a_file_beside_a_table(
    random_bundle: Path,
    serve_http: Callable[..., Any],
    reap: Callable[[subprocess.Popen[bytes]], None],
    tmp_path: Path,
) -> None:
    server, log = serve_http(fps=10), tmp_path / "log"
    screen, terminal = pty.openpty()
    with log.open("w") as file:
        process = subprocess.Popen(
            [*COMMAND, f"door={server.url}", "--bundle", str(random_bundle), "--fps", "10", *BRIEF],
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=file,
            env={**os.environ, "TERM": "xterm"},
        )
    reap(process)
    os.close(terminal)
    seen, steps = b"", [b"running", b"reconnecting"]
    # Linux says EIO where the other end is closed.
    with contextlib.suppress(OSError):
        while data := os.read(screen, 1 << 16):
            seen += data
            if steps and steps[0] in seen + log.read_bytes():
                server.kill() if steps.pop(0) == b"running" else process.terminate()
    os.close(screen)
    assert process.wait(timeout=60) == 0
    assert b"running" in seen
    assert b"lost: " not in seen
    assert "WARNING sources: " in log.read_text()


def test_an_interrupt_before_a_verb_runs_leaves_no_traceback() -> None:
    code = """
import os, signal, typer.main
get = typer.main.get_command
def interrupted(app):
    os.kill(os.getpid(), signal.SIGINT)
    return get(app)
typer.main.get_command = interrupted
from hermes_edge.cli import main
main()
"""
    command = [sys.executable, "-c", code, "run", "cam0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")
