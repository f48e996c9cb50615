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


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc tells the processes")
def test_an_interrupt_ends_all_processes() -> None:
    program = "from hermes_edge.cli import main; main()"
    options = ("--jobs", "2", "--threads", "1", "--streams", "480x20x4")
    process = subprocess.Popen(
        [sys.executable, "-c", program, "recall", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        # Two workers, and the process that tracks their resources.
        while len(found := children(process.pid)) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert stdout == "" and "Traceback" not in stderr
    # The tracker of resources ends a moment after all others.
    deadline = time.monotonic() + 10
    while left := [child for child in found if Path(f"/proc/{child}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
