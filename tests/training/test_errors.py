"""What a training cannot do, said by a process: one message, its exit code, no traceback."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hermes_edge.training.state import LOG_NAME, STATE_NAME

if TYPE_CHECKING:
    from tests.training.conftest import Trainings

MEND = "Mend that and start the same command again: it goes on from the last save"
# Bytes that a file may have: less than the tokenizer, the weights, or weights with moments.
NOTHING, LITTLE, CHECKPOINT = 1_000, 1_000_000, 17_000_000


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_unknown_recipe(trainings: Trainings, tmp_path: Path) -> None:
    ended = trainings.run(tmp_path / "new", recipe="slow")
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == "error: unknown recipe: required hermes-tiny, quick, found 'slow'\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("asked", [("quick", "1"), ("hermes-tiny", "0")])
def test_the_folder_of_another_training(
    trainings: Trainings, begun: Path, asked: tuple[str, str]
) -> None:
    recipe, seed = asked
    before = contents(begun)
    ended = trainings.run(begun, "--seed", seed, recipe=recipe)
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"error: {begun} holds another training: required recipe {recipe}, seed {seed}, "
        "found recipe quick, seed 0. Choose another folder\n"
    )
    assert contents(begun) == before


def test_a_damaged_state(trainings: Trainings, begun: Path, tmp_path: Path) -> None:
    path = tmp_path / STATE_NAME
    path.write_bytes((begun / STATE_NAME).read_bytes()[:2_000_000])
    ended = trainings.run(tmp_path)
    assert (ended.code, ended.stdout) == (10, "")
    assert ended.stderr == (
        f"error: {path} is damaged, or of another version: "
        "found PytorchStreamReader failed reading zip archive: failed finding central directory. "
        "Delete it to begin again, or restore a copy\n"
    )
    assert path.stat().st_size == 2_000_000 and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(("inside", "reason"), [("", "File exists"), ("new", "Not a directory")])
def test_a_folder_that_is_a_file(
    trainings: Trainings, tmp_path: Path, inside: str, reason: str
) -> None:
    (tmp_path / "file").write_text("text")
    folder = tmp_path / "file" / inside
    ended = trainings.run(folder)
    assert (ended.code, ended.stdout) == (10, "")
    assert ended.stderr == f"error: cannot write {folder}: found {reason}. {MEND}\n"
    assert (tmp_path / "file").read_text() == "text"


def test_a_folder_that_cannot_be_made(trainings: Trainings, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    ended = trainings.run(tmp_path / "new", powerless=True)
    assert (ended.code, ended.stdout) == (10, "")
    assert (
        ended.stderr == f"error: cannot write {tmp_path / 'new'}: found Permission denied. {MEND}\n"
    )


def test_a_folder_that_cannot_be_written(trainings: Trainings, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    ended = trainings.run(tmp_path, powerless=True)
    assert (ended.code, ended.stdout) == (10, "")
    place = tmp_path / "checkpoint"
    assert ended.stderr == f"error: cannot write {place}: found Permission denied. {MEND}\n"


def test_a_state_that_cannot_be_read(trainings: Trainings, tmp_path: Path) -> None:
    path = tmp_path / STATE_NAME
    path.write_bytes(b"")
    path.chmod(0)
    ended = trainings.run(tmp_path, powerless=True)
    assert (ended.code, ended.stdout) == (10, "")
    assert ended.stderr == f"error: cannot read {path}: found Permission denied\n"


@pytest.mark.parametrize(
    ("most_bytes", "reason"),
    [
        (NOTHING, "File too large (os error 27)"),
        (LITTLE, "Error while serializing: I/O error: File too large (os error 27)"),
    ],
    ids=["tokenizer", "weights"],
)
def test_a_checkpoint_on_a_full_disk(
    trainings: Trainings, begun: Path, tmp_path: Path, most_bytes: int, reason: str
) -> None:
    folder = shutil.copytree(begun, tmp_path / "copy")
    ended = trainings.run(folder, most_bytes=most_bytes)
    assert (ended.code, ended.stdout) == (10, "")
    place = folder / "checkpoint"
    assert ended.stderr == f"error: cannot write {place}: found {reason}. {MEND}\n"
    assert contents(folder) == contents(begun)


def test_a_state_on_a_full_disk(trainings: Trainings, begun: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(begun, tmp_path / "copy")
    ended = trainings.run(folder, most_bytes=CHECKPOINT)
    assert (ended.code, ended.stdout) == (10, "")
    text = f"error: cannot write {folder / STATE_NAME}: found File too large. {MEND}"
    assert ended.stderr.splitlines()[-1] == text
    assert "Traceback" not in ended.stderr
    after, before = contents(folder), contents(begun)
    assert after.keys() == before.keys()
    assert after[STATE_NAME] == before[STATE_NAME]
    # The steps before the save have been logged.
    assert after[LOG_NAME].startswith(before[LOG_NAME])
    assert json.loads(after[LOG_NAME].splitlines()[-1])["step"] == 4


def test_a_log_on_a_full_disk(trainings: Trainings, begun: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(begun, tmp_path / "copy")
    log = folder / LOG_NAME
    with log.open("r+b") as file:
        # Room for a part of a line.
        file.truncate(CHECKPOINT - 10)
    ended = trainings.run(folder, most_bytes=CHECKPOINT)
    assert (ended.code, ended.stdout) == (10, "")
    text = f"error: cannot write {log}: found File too large. {MEND}"
    assert ended.stderr.splitlines()[-1] == text
    assert log.stat().st_size == CHECKPOINT - 10
    assert (folder / STATE_NAME).read_bytes() == (begun / STATE_NAME).read_bytes()


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_package_that_is_not_installed(
    tmp_path: Path, environment: dict[str, str], package: str
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for folder in site.getsitepackages():
        for path in Path(folder).iterdir():
            if path.name != package:
                (packages / path.name).symlink_to(path)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "hermes_edge.training", str(tmp_path / "new")],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": f"{environment['PYTHONPATH']}:{packages}"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (11, "")
    needed = "torch, transformers, onnx, onnxscript, onnxruntime, huggingface_hub"
    assert done.stderr == (
        f"error: exporting needs more packages: required {needed}, found no {package}. "
        "Install them with: pip install 'hermes-edge[export]'\n"
    )
    assert not (tmp_path / "new").exists()
