"""A clean environment, the bundle in the box, a video, and two ways to call the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hermes_edge.cli.app import app
from hermes_edge.synthetic import make_stream, write_video

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from hermes_edge.cli import main; main()"]

Outcome = tuple[int, str, str]
Cli = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from outside: neither variables nor a file in the working directory."""
    for name in [name for name in os.environ if name.upper().startswith("HERMES_EDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds, two frames a second."""
    path = tmp_path_factory.mktemp("video") / "shapes.avi"
    write_video(path, make_stream(0, 40), fps=2)
    return path


@pytest.fixture
def cli() -> Cli:
    """In this process: exit code, stdout, stderr."""

    def call(*args: object) -> Outcome:
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def run(random_bundle: Path, cli: Cli, video: Path) -> Cli:
    """``run`` on the video and the bundle in the box, with short answers."""

    def call(*args: object) -> Outcome:
        return cli(
            *("run", video, "--bundle", random_bundle, "--max-tokens", 4, "--chunk-frames", 4),
            *("--threads", 1, *args),
        )

    return call


@pytest.fixture
def reap() -> Iterator[Callable[[subprocess.Popen[Any]], None]]:
    """Processes that end with the test at the latest, also where it fails."""
    processes: list[subprocess.Popen[Any]] = []
    yield processes.append
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def spawn(
    reap: Callable[[subprocess.Popen[Any]], None],
) -> Callable[..., subprocess.Popen[str]]:
    """A process of its own, with its streams kept apart."""

    def start(*args: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        reap(process)
        return process

    return start
