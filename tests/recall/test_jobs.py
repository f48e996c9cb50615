"""Several processes see the streams: the same result, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_edge.errors import SettingsError
from hermes_edge.recall.run import Group, RecallSettings, run_recall
from hermes_edge.shipped import TINY_BUNDLE

SETTINGS = RecallSettings(
    bundle=TINY_BUNDLE,
    policies=("window", "hermes"),
    budget_shares=(0.1,),
    groups=(Group(12, 3, 4), Group(24, 2, 4)),
    threads=1,
)


def test_two_jobs_give_the_result_of_one() -> None:
    told: list[tuple[int, int]] = []
    alone = run_recall(SETTINGS, lambda done, films, stage: None)
    shared = run_recall(
        replace(SETTINGS, jobs=2), lambda done, films, stage: told.append((done, films))
    )
    assert (shared.asked, shared.cells) == (alone.asked, alone.cells)
    assert told == [(done, 5) for done in range(6)]


def test_no_jobs() -> None:
    with pytest.raises(SettingsError) as caught:
        run_recall(replace(SETTINGS, jobs=0), lambda done, films, stage: None)
    assert str(caught.value) == "jobs is out of range: required at least 1, found 0"


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def spawn(tmp_path: Path) -> subprocess.Popen[str]:
    """A benchmark of two jobs that takes minutes, in a group of its own."""
    program = "from hermes_edge.cli import main; main()"
    options = ("--jobs", "2", "--threads", "1", "--streams", "480x20x4")
    return subprocess.Popen(
        [sys.executable, "-c", program, "recall", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Both, once they have begun; the tracker of resources is no worker."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < deadline
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        commands = {int(c): Path(f"/proc/{c}/cmdline").read_text() for c in children}
        found = [child for child, command in commands.items() if "spawn_main" in command]
        if len(found) == 2:
            time.sleep(1)
            return found
        time.sleep(0.05)


def end(process: subprocess.Popen[str], children: list[int]) -> tuple[int, str, str]:
    """Exit code and output, when no worker is left."""
    try:
        stdout, stderr = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while left := [child for child in children if Path(f"/proc/{child}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    return process.returncode, stdout, stderr


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="no /proc tells the processes"
)


@needs_proc
@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "kill"])
def test_an_interrupt_ends_all_processes(tmp_path: Path, whole_group: bool) -> None:
    process = spawn(tmp_path)
    children = workers(process)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    code, stdout, stderr = end(process, children)
    assert (code, stdout) == (130, "")
    assert "Traceback" not in stderr


@needs_proc
def test_a_worker_that_is_killed_ends_the_run_with_a_reason(tmp_path: Path) -> None:
    """As the kernel does where memory is short."""
    process = spawn(tmp_path)
    children = workers(process)
    os.kill(children[0], signal.SIGKILL)
    code, stdout, stderr = end(process, children)
    assert (code, stdout) == (6, "")
    assert "error: a process that saw streams has ended: found " in stderr
    assert stderr.endswith("If memory was short: lower --jobs\n")
    assert "Traceback" not in stderr
