"""Processes of their own: exit codes, signals, closed pipes, and a lean import."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes_edge.process import available_bytes, resident_bytes
from hermes_edge.snapshots.folder import fault_of
from hermes_edge.synthetic import make_stream, write_video

Spawn = Callable[..., "subprocess.Popen[str]"]
COMMAND = [sys.executable, "-c", "from hermes_edge.cli import main; main()"]


def test_answers_go_to_stdout_and_errors_to_stderr(
    random_bundle: Path, spawn: Spawn, video: Path
) -> None:
    args = ("run", video, "--bundle", random_bundle, "--max-tokens", 2, "--json")
    process = spawn(*args, "--ask", "0:02 A?")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [json.loads(line)["type"] for line in stdout.splitlines()] == ["answer", "summary"]
    assert stderr == ""


def test_error_has_its_own_exit_code_and_no_traceback(spawn: Spawn) -> None:
    process = spawn("inspect", "nowhere")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (4, "")
    assert stderr.startswith("error: nowhere is not a bundle")
    assert "Traceback" not in stderr


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    """Long enough to be interrupted: 3,000 frames."""
    path = tmp_path / "long.avi"
    write_video(path, make_stream(0, 3000), fps=10)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_order_and_keeps_what_was_answered(
    random_bundle: Path, spawn: Spawn, long_video: Path, number: signal.Signals
) -> None:
    process = spawn(
        *("run", long_video, "--bundle", random_bundle, "--fps", 10, "--max-tokens", 2, "--json"),
        *("--ask", "0:00 A?", "--ask", "end B?"),
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(number)
    rest, stderr = process.communicate(timeout=60)
    assert (first["question"], process.returncode, stderr) == ("A?", 0, "")
    summary = json.loads(rest)
    assert (summary["type"], summary["unanswered"]) == ("summary", 1)
    assert 0 < summary["memory"]["frames_seen"] < 3000


def test_interrupt_while_loading_is_130_without_a_traceback() -> None:
    code = """
import os, signal, sys
class InterruptAtTyper:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, InterruptAtTyper())
from hermes_edge.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_source_that_hangs_does_not_hold_up_the_exit_nor_abort_it() -> None:
    """What is left of it cannot come back while the interpreter ends: nothing of that runs."""
    code = """
import atexit, threading, time
from hermes_edge.cli import main
threading.Thread(target=time.sleep, args=[600], name="capture door", daemon=True).start()
atexit.register(print, "the interpreter ends")
main()
"""
    for verb, returncode in (["--help"], 0), (["run"], 2):
        command = [sys.executable, "-c", code, *verb]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == returncode
        assert "hermes-edge" in done.stdout + done.stderr
        assert "the interpreter ends" not in done.stdout


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "documents"])
def test_an_output_without_room_is_told_of(
    random_bundle: Path, video: Path, more: list[str]
) -> None:
    command = [*COMMAND, "run", video, "--bundle", random_bundle, "--ask", "0:01 A?", *more]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*map(str, command)], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        10,
        "error: the output cannot be written: found No space left on device. Make room where it "
        "goes, or send it elsewhere\n",
    )


def test_closed_pipe_is_quiet(random_bundle: Path, spawn: Spawn, long_video: Path) -> None:
    process = spawn(
        *("run", long_video, "--bundle", random_bundle, "--fps", 10, "--max-tokens", 2, "--json"),
        *("--ask", "0:00 A?", "--ask", "0:01 B?"),
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_a_closed_pipe_ends_several_streams(
    random_bundle: Path, spawn: Spawn, long_video: Path
) -> None:
    args = ("--bundle", random_bundle, "--fps", 10, "--max-tokens", 2, "--ask", "0:01 A?")
    process = spawn("run", f"a={long_video}", f"b={long_video}", *args)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert "ERROR service: a: [Errno 32] Broken pipe\n" in told
    assert "Traceback" not in told


def test_without_standard_streams_it_runs_all_the_same(
    random_bundle: Path, video: Path, tmp_path: Path
) -> None:
    args = ["run", str(video), "--bundle", str(random_bundle), "--max-tokens", "2", "--stdin"]
    words = [*COMMAND, *args, "--ask", "0:02 A?", "--snapshots", str(tmp_path / "saved")]
    command = f"{shlex.join(words)} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], timeout=60, check=False).returncode == 0
    # None of what would have been printed went into a file that got the stream's number.
    (path,) = (tmp_path / "saved").iterdir()
    assert fault_of(path) is None


def test_answers_can_be_written_to_a_terminal_that_knows_ascii_only(
    random_bundle: Path, spawn: Spawn, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = spawn("run", video, "--bundle", random_bundle, "--ask", "0:02 Où?", "--max-tokens", 9)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert stdout.startswith("[0:02] O\\xf9?\n")


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, hermes_edge.cli.app; print(' '.join(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "transformers", "onnx", "onnxruntime", "cv2", "tokenizers"} & {*modules}


def test_answering_needs_no_torch_and_no_onnx(random_bundle: Path, video: Path) -> None:
    args = ["run", str(video), "--bundle", str(random_bundle), "--ask", "0:02 A?"]
    code = (
        "import sys; from hermes_edge.cli.app import app; "
        f"app({[*args, '--max-tokens', '2']!r}, standalone_mode=False); "
        "print(' '.join(sys.modules))"
    )
    stdout = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    modules = {*stdout.splitlines()[-1].split()}
    assert "onnxruntime" in modules
    assert not {"torch", "transformers", "onnx", "onnxscript"} & modules


def test_memory_of_process_and_machine() -> None:
    available = available_bytes()
    assert 1 << 20 < resident_bytes()
    assert available is not None
    assert available > 0
