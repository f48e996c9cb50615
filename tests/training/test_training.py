"""The quick recipe as a real process: whole, interrupted, and where it cannot go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hermes_edge.training.schedule import QUICK, RECIPES
from hermes_edge.training.state import STATE_NAME

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "300"}
COMMAND = [sys.executable, "-m", "hermes_edge.training"]


def _run(folder: Path, *options: str, before: str = "") -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, str(folder), *(options or ("--recipe", "quick"))]
    if before:
        start = "runpy.run_module('hermes_edge.training', run_name='__main__')"
        code = f"{before}\nimport runpy; {start}"
        command = [sys.executable, "-c", code, *command[3:]]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / STATE_NAME, weights_only=True)
    assert state["step"] == QUICK.steps
    weights: dict[str, torch.Tensor] = state["model"]
    return weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quick recipe has ended."""
    folder = tmp_path_factory.mktemp("trained")
    done = _run(folder)
    assert (done.returncode, done.stdout) == (0, "")
    return folder


def test_a_training_leaves_a_checkpoint_and_a_log(trained: Path) -> None:
    names = {path.name for path in (trained / "checkpoint").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    lines = (trained / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == -(-QUICK.steps // QUICK.log_every)


def test_a_training_that_has_ended_does_nothing_more(trained: Path) -> None:
    before = (trained / STATE_NAME).read_bytes()
    assert _run(trained).returncode == 0
    weights = _weights(trained)
    (trained / STATE_NAME).write_bytes(before)
    for name, weight in _weights(trained).items():
        assert torch.equal(weight, weights[name])


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_interrupted_training_ends_as_if_nothing_had_happened(
    trained: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [*COMMAND, str(tmp_path), "--recipe", "quick"],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    # The log is written between two saves.
    log, deadline = tmp_path / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(sent)
    _, stderr = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in stderr
    step = torch.load(tmp_path / STATE_NAME, weights_only=True)["step"]
    assert 0 < step < QUICK.steps
    assert _run(tmp_path).returncode == 0
    for name, weight in _weights(trained).items():
        assert torch.equal(weight, _weights(tmp_path)[name]), name


def test_each_stage_trains_its_own_part(trained: Path, tmp_path: Path) -> None:
    from hermes_edge.training.model import make_model, make_tokenizer

    fresh = make_model(make_tokenizer(), 0).state_dict()
    changed = {n for n, w in _weights(trained).items() if not torch.equal(w, fresh[n])}
    assert any("vision_tower" in name for name in changed)
    assert any("language_model.layers" in name for name in changed)
    assert "model.language_model.embed_tokens.weight" in changed


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (
            ("--recipe", "slow"),
            2,
            f"error: unknown recipe: required {', '.join(RECIPES)}, found 'slow'",
        ),
        (
            ("--recipe", "quick", "--seed", "1"),
            2,
            "error: {folder} holds another training: required recipe quick, seed 1, "
            "found recipe quick, seed 0. Choose another folder",
        ),
    ],
)
def test_what_does_not_fit_the_folder(
    trained: Path, options: tuple[str, ...], code: int, text: str
) -> None:
    done = _run(trained, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.strip() == text.format(folder=trained)


@pytest.mark.parametrize("keep", [0, 1000, 2_000_000])
def test_a_damaged_state_is_said(trained: Path, tmp_path: Path, keep: int) -> None:
    (tmp_path / STATE_NAME).write_bytes((trained / STATE_NAME).read_bytes()[:keep])
    done = _run(tmp_path)
    assert (done.returncode, done.stdout) == (10, "")
    text = rf"error: {re.escape(str(tmp_path / STATE_NAME))} is damaged: found .+\. "
    assert re.fullmatch(text + r"Delete it to begin again, or restore a copy\n", done.stderr)


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    done = _run(path)
    assert (done.returncode, done.stdout) == (10, "")
    assert done.stderr == (
        f"error: cannot write {path}: found File exists. "
        "Mend that and start the same command again: it goes on from the last save\n"
    )


# Room for the checkpoint of 17 MB, not for the state of 22 MB and more.
SMALL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (19_000_000, 19_000_000))
"""


def test_a_full_disk_leaves_the_last_save(trained: Path, tmp_path: Path) -> None:
    state = torch.load(trained / STATE_NAME, weights_only=True)
    state.update(step=1, optimizer=None)
    torch.save(state, tmp_path / STATE_NAME)
    before = (tmp_path / STATE_NAME).read_bytes()
    done = _run(tmp_path, before=SMALL_DISK)
    assert (done.returncode, done.stdout) == (10, "")
    assert "Traceback" not in done.stderr
    text = rf"error: cannot write {re.escape(str(tmp_path / STATE_NAME))}: found .+\. Mend that"
    assert re.search(text, done.stderr)
    assert (tmp_path / STATE_NAME).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {STATE_NAME, "checkpoint", "log.jsonl"}


HIDE_TORCH = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
"""


def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    done = _run(tmp_path, before=HIDE_TORCH)
    assert (done.returncode, done.stdout) == (11, "")
    assert done.stderr.startswith("error: exporting needs more packages: required torch, ")
    assert done.stderr.endswith("Install them with: pip install 'hermes-edge[export]'\n")
