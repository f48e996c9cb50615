"""State, log and checkpoint: whole or not at all, and what is wrong with them is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.synthetic import SPLITS
from hermes_edge.training.loop import _SEEDS_EACH, Training
from hermes_edge.training.model import make_model, save_checkpoint
from hermes_edge.training.schedule import RECIPES
from hermes_edge.training.state import LOG_NAME, STATE_NAME, append_log, load_state, replacing

FIX = "Delete it to begin again, or restore a copy"


@pytest.mark.parametrize(
    ("keep", "found"),
    [
        (0, "EOFError"),
        (1000, "PytorchStreamReader failed reading zip archive: failed finding central directory"),
        (-1, "PytorchStreamReader failed reading zip archive: failed finding central directory"),
    ],
)
def test_a_truncated_state_is_damaged(begun: Path, tmp_path: Path, keep: int, found: str) -> None:
    path = tmp_path / STATE_NAME
    path.write_bytes((begun / STATE_NAME).read_bytes()[:keep])
    with pytest.raises(StorageError) as caught:
        load_state(tmp_path, "quick", 0)
    assert str(caught.value) == f"{path} is damaged, or of another version: found {found}. {FIX}"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"step": 1}, "no 'recipe'"),
        (["quick", 0], "list indices must be integers or slices, not str"),
        (b"garbage" * 1000, "Weights only load failed"),
    ],
)
def test_another_files_content_is_no_state(tmp_path: Path, content: Any, found: str) -> None:
    path = tmp_path / STATE_NAME
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(StorageError) as caught:
        load_state(tmp_path, "quick", 0)
    assert str(caught.value) == f"{path} is damaged, or of another version: found {found}. {FIX}"


def test_a_state_that_is_a_folder_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / STATE_NAME).mkdir()
    with pytest.raises(StorageError) as caught:
        load_state(tmp_path, "quick", 0)
    assert str(caught.value) == f"cannot read {tmp_path / STATE_NAME}: found Is a directory"


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("model", "Error(s) in loading state_dict for LlavaOnevisionForConditionalGeneration"),
        ("hints", "Error(s) in loading state_dict for Hints"),
        ("optimizer", "no 'param_groups'"),
        ("step", "no 'step'"),
    ],
)
def test_a_state_of_another_version_is_said(
    begun: Path, tmp_path: Path, part: str, found: str
) -> None:
    state = torch.load(begun / STATE_NAME, weights_only=True)
    if part == "step":
        del state["step"]
    else:
        # Without the last of its parts.
        state[part] = dict([*state[part].items()][:-1])
    torch.save(state, tmp_path / STATE_NAME)
    with pytest.raises(StorageError) as caught:
        Training(tmp_path, "quick", 0)
    path = tmp_path / STATE_NAME
    assert str(caught.value) == f"{path} is damaged, or of another version: found {found}. {FIX}"
    assert [path.name for path in tmp_path.iterdir()] == [STATE_NAME]


@pytest.mark.parametrize("seed", [-1, 100])
def test_a_seed_outside_of_the_training_split_is_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(SettingsError) as caught:
        Training(tmp_path / "new", "quick", seed)
    assert str(caught.value) == f"seed is out of range: required 0 to 99, found {seed}"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_the_streams_of_every_seed_are_of_the_training_split(name: str) -> None:
    recipe = RECIPES[name]
    # Where the loop takes them from.
    last = 99 * _SEEDS_EACH + 1_000_000 + 64 * recipe.steps
    assert last in SPLITS["train"]
    assert 1_000_000 + 64 * recipe.steps < _SEEDS_EACH
    assert recipe.tower_steps < 1_000_000
    assert all(phase.shape.streams <= 64 for phase in recipe.phases)


def test_a_line_of_the_log_is_added_behind_the_others(tmp_path: Path) -> None:
    for step in (1, 2):
        append_log(tmp_path, {"step": step, "loss": 0.5})
    lines = (tmp_path / LOG_NAME).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": s, "loss": 0.5} for s in (1, 2)]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_a_checkpoint_is_replaced_whole_or_not_at_all(
    checkpoint: Path, tmp_path: Path, tokenizer: Tokenizer, stop: type[BaseException]
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(stop), replacing(folder) as beside:
        (beside / "model.safetensors").write_bytes(b"half")
        raise stop
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [*tmp_path.iterdir()] == [folder]

    # Left by a process that was killed.
    (tmp_path / "checkpoint.part").mkdir()
    (tmp_path / "checkpoint.part" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "checkpoint.part" / "other").write_bytes(b"")
    save_checkpoint(folder, make_model(tokenizer, seed=3), tokenizer)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"model.safetensors"}
    assert after.keys() == before.keys()
    assert [*tmp_path.iterdir()] == [folder]
