"""A random model with batches for it, and trainings as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from tokenizers import Tokenizer

from hermes_edge.export.random_checkpoint import randomise
from hermes_edge.runtime.text import TextCodec
from hermes_edge.training.model import make_model, make_tokenizer, save_checkpoint
from hermes_edge.training.state import STATE_NAME

ROOT = Path(__file__).parents[2]
# Sums are added up in one order only where one thread adds them.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Ended:
    """What a process leaves."""

    code: int
    stdout: str
    stderr: str


class Running:
    """A training at work."""

    def __init__(self, pid: int, replies: IO[str], output: Path) -> None:
        self.pid, self._replies, self._output = pid, replies, output

    def wait(self) -> Ended:
        """Its end."""
        code = int(self._replies.readline())
        stdout, stderr = ((self._output / name).read_text() for name in ("stdout", "stderr"))
        return Ended(code, stdout, stderr)


class Trainings:
    """Starts trainings, one at a time."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self._process, self._output = process, output

    def start(
        self,
        folder: Path,
        *options: str,
        recipe: str = "quick",
        most_bytes: int | None = None,
        powerless: bool = False,
    ) -> Running:
        """A process of its own, with files of at most ``most_bytes`` and with a user's rights."""
        assert self._process.stdin is not None and self._process.stdout is not None
        output = tempfile.mkdtemp(dir=self._output)
        wish = {
            "args": [str(folder), "--recipe", recipe, *options],
            "output": output,
            "most_bytes": most_bytes,
            "powerless": powerless,
        }
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        return Running(pid, self._process.stdout, Path(output))

    def run(self, folder: Path, *options: str, **settings: Any) -> Ended:
        """From beginning to end."""
        return self.start(folder, *options, **settings).wait()


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Of every training."""
    return ENVIRONMENT


@pytest.fixture(scope="session")
def begun(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quick recipe was killed after its first save, at step 2."""
    folder = tmp_path_factory.mktemp("begun")
    running = trainings.start(folder)
    while not (folder / STATE_NAME).exists():
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    assert torch.load(folder / STATE_NAME, weights_only=True)["step"] == 2
    return folder


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Trainings as processes."""
    command = [sys.executable, str(Path(__file__).with_name("forks.py"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT) as process:
        yield Trainings(process, tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="session")
def trained(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quick recipe has ended without a break."""
    folder = tmp_path_factory.mktemp("trained")
    ended = trainings.run(folder)
    assert (ended.code, ended.stdout) == (0, ""), ended.stderr
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """hermes-tiny's."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Any:
    """hermes-tiny's geometry, every weight random, norms too."""
    made: Any = make_model(tokenizer, seed=0)
    randomise(made, seed=1)
    return made.eval()


@pytest.fixture(scope="session")
def checkpoint(model: Any, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    folder = tmp_path_factory.mktemp("checkpoint") / "random"
    save_checkpoint(folder, model, tokenizer)
    return folder


@pytest.fixture(scope="session")
def codec(checkpoint: Path) -> TextCodec:
    """Prompts as the runtime makes them."""
    return TextCodec.open(checkpoint, "<video>")
