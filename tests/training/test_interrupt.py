"""Trainings that are killed or interrupted, started again, and end as if nothing had happened."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from hermes_edge.training.schedule import QUICK
from hermes_edge.training.state import LOG_NAME, STATE_NAME

if TYPE_CHECKING:
    from tests.training.conftest import Running, Trainings

PART = "training.part"


def state(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor and number of the folder's state, by name."""
    found: dict[str, torch.Tensor] = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}/{key}", inner)
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                walk(f"{name}/{index}", inner)
        else:
            found[name] = value if isinstance(value, torch.Tensor) else torch.tensor(hash(value))

    walk("", torch.load(folder / STATE_NAME, weights_only=True))
    return found


def assert_equal(folder: Path, other: Path) -> None:
    """Bit by bit: weights, hints, moments, step; and the checkpoint's files."""
    one, same = state(folder), state(other)
    assert one.keys() == same.keys() and len(one) > 500
    assert not [name for name in one if not torch.equal(one[name], same[name])]
    names = {path.name for path in (folder / "checkpoint").iterdir()}
    assert names == {path.name for path in (other / "checkpoint").iterdir()}
    for name in names:
        both = ((place / "checkpoint" / name).read_bytes() for place in (folder, other))
        assert next(both) == next(both), name


def test_a_training_leaves_state_log_and_checkpoint(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {STATE_NAME, LOG_NAME, "checkpoint"}
    names = {path.name for path in (trained / "checkpoint").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert state(trained)["/step"] == QUICK.steps
    records = [json.loads(line) for line in (trained / LOG_NAME).read_text().splitlines()]
    assert [record["step"] for record in records] == [*range(2, QUICK.steps + 1, 2)]
    for record in records:
        assert {"rate", "s", "thing" if record["step"] < 4 else "answer"} <= record.keys()


def test_a_training_that_has_ended_trains_no_more(
    trainings: Trainings, trained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained, tmp_path / "copy")
    assert trainings.run(folder).code == 0
    assert_equal(folder, trained)
    assert (folder / LOG_NAME).read_bytes() == (trained / LOG_NAME).read_bytes()


def halt_while_saving(trainings: Trainings, folder: Path, sent: signal.Signals) -> Running:
    """A training that was sent a signal when a part of its next state had been written."""
    part = folder / PART
    # A pipe that nobody empties: the writer waits in the middle of its file.
    os.mkfifo(part)
    pipe = os.open(part, os.O_RDONLY | os.O_NONBLOCK)
    try:
        running = trainings.start(folder)
        assert select.select([pipe], [], [], 120)[0], "no save has begun"
        os.kill(running.pid, sent)
        ended = running.wait()
    finally:
        os.close(pipe)
    assert (ended.code, ended.stdout) == (130 if sent == signal.SIGINT else -sent, "")
    assert "Traceback" not in ended.stderr and "error" not in ended.stderr
    return running


def test_halts_between_and_within_saves_change_nothing(
    trainings: Trainings, trained: Path, begun: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(begun, tmp_path / "copy")
    before = (folder / STATE_NAME).read_bytes()

    halt_while_saving(trainings, folder, signal.SIGINT)
    assert (folder / STATE_NAME).read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {STATE_NAME, LOG_NAME, "checkpoint"}

    halt_while_saving(trainings, folder, signal.SIGKILL)
    assert (folder / STATE_NAME).read_bytes() == before
    # What a killed process leaves: half of a state, and half of a checkpoint.
    (folder / PART).unlink()
    (folder / PART).write_bytes(before[: len(before) // 2])
    (folder / "checkpoint.part").mkdir(exist_ok=True)
    (folder / "checkpoint.part" / "model.safetensors").write_bytes(b"half")

    # Between two saves, past the tower's stage: the log comes before the save.
    running = trainings.start(folder)
    while state(folder)["/step"] == 2:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGINT)
    ended = running.wait()
    assert (ended.code, ended.stdout) == (130, "")
    assert "Traceback" not in ended.stderr
    assert 2 < state(folder)["/step"] < QUICK.steps

    assert trainings.run(folder).code == 0
    assert_equal(folder, trained)
    assert {path.name for path in folder.iterdir()} == {STATE_NAME, LOG_NAME, "checkpoint"}


@pytest.mark.parametrize("module", ["typer", "torch"])
def test_an_interrupt_while_loading_is_130_without_a_traceback(
    tmp_path: Path, environment: dict[str, str], module: str
) -> None:
    code = f"""
import os, runpy, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
runpy.run_module("hermes_edge.training", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "new")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert not (tmp_path / "new").exists()
