"""The text files of a bundle, from every form in which checkpoints hold them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from hermes_edge.errors import CheckpointError
from hermes_edge.export.checkpoint import Checkpoint
from hermes_edge.export.random_checkpoint import CHAT_TEMPLATE
from hermes_edge.export.tokenizer import TextFacts, write_text_files


@pytest.fixture
def folder(llava: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint to change."""
    return shutil.copytree(llava, tmp_path / "checkpoint")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    path.mkdir()
    return path


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def test_files_are_taken_over(folder: Path, target: Path) -> None:
    facts = write_text_files(Checkpoint.open(folder), target)
    assert facts == TextFacts("<video>", (2,))
    assert (target / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    original, written = (
        Tokenizer.from_file(str(path / "tokenizer.json")) for path in (folder, target)
    )
    text = "<|im_start|>user <video>\nWhat happens?<|im_end|>"
    assert written.encode(text).ids == original.encode(text).ids


def test_vocabulary_and_merges_are_converted(folder: Path, target: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    edit(
        folder / "tokenizer_config.json",
        tokenizer_class="Qwen2Tokenizer",
        added_tokens_decoder={
            str(tokenizer.token_to_id(token)): {"content": token, "special": True}
            for token in special
        },
    )
    assert write_text_files(Checkpoint.open(folder), target).video_token == "<video>"
    written = Tokenizer.from_file(str(target / "tokenizer.json"))
    text = "<|im_start|>user <video>\nWhat is happening?<|im_end|>"
    assert written.encode(text).ids == tokenizer.encode(text).ids


def test_a_checkpoint_without_text_files(folder: Path, target: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    assert write_text_files(Checkpoint.open(folder), target) == TextFacts(None, (2,))
    assert not list(target.iterdir())


def test_end_of_turn_ends_an_answer_where_nothing_else_is_said(folder: Path, target: Path) -> None:
    (folder / "generation_config.json").unlink()
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit(folder / "config.json", eos_token_id=None, text_config=text | {"eos_token_id": None})
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.config.eos_token_ids == ()
    assert write_text_files(checkpoint, target).eos_token_ids == (2,)


@pytest.mark.parametrize("name", ["chat_template.json", "tokenizer_config.json"])
def test_template_inside_json(folder: Path, target: Path, name: str) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / name).write_text(json.dumps({"chat_template": "{{ messages }}"}))
    write_text_files(Checkpoint.open(folder), target)
    assert (target / "chat_template.jinja").read_text() == "{{ messages }}"


def test_unreadable_tokenizer(folder: Path, target: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(CheckpointError) as caught:
        write_text_files(Checkpoint.open(folder), target)
    assert str(caught.value).startswith(
        f"the tokenizer of {folder} cannot be read: "
        "required tokenizer.json, or vocab.json with merges.txt, found "
    )
    assert str(caught.value).endswith(". Download the checkpoint again")


def test_unreadable_template(folder: Path, target: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"cannot read .*chat_template\.jinja: found 'utf-8'"):
        write_text_files(Checkpoint.open(folder), target)


def test_video_token_that_the_tokenizer_lacks(folder: Path, target: Path) -> None:
    edit(folder / "config.json", video_token_index=511)
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    assert size < 511
    with pytest.raises(CheckpointError) as caught:
        write_text_files(Checkpoint.open(folder), target)
    assert str(caught.value) == (
        f"the tokenizer of {folder} does not fit its model: "
        "required a video token with id 511, found no such token"
    )


def test_tokenizer_larger_than_the_vocabulary(folder: Path, target: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"<extra_{index}>" for index in range(512)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError) as caught:
        write_text_files(Checkpoint.open(folder), target)
    assert str(caught.value) == (
        f"the tokenizer of {folder} does not fit its model: "
        f"required at most 512 tokens, found {tokenizer.get_vocab_size()}"
    )
