"""Random checkpoints must look to transformers like real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration

from hermes_edge.errors import SettingsError
from hermes_edge.export import make_random_checkpoint
from hermes_edge.export.checkpoint import Checkpoint, required_tensors

SCRIPT = Path(__file__).parents[2] / "export" / "random_checkpoint.py"


def test_transformers_loads_every_tensor_and_no_other(llava: Path) -> None:
    loader: Any = LlavaOnevisionForConditionalGeneration
    model, info = loader.from_pretrained(llava, output_loading_info=True)
    assert not any(info.values()), info
    assert model.config.text_config.tie_word_embeddings
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_everything_is_random(llava: Path) -> None:
    checkpoint = Checkpoint.open(llava)
    assert checkpoint.config.random_weights
    for name in required_tensors(checkpoint.config):
        assert checkpoint.weights.load(name, torch.float32).std() > 0.01, name


def test_same_seed_same_weights(llava: Path, tmp_path: Path) -> None:
    same = make_random_checkpoint(tmp_path / "same", "tiny", seed=0)
    other = make_random_checkpoint(tmp_path / "other", "tiny", seed=1)
    weights = [(path / "model.safetensors").read_bytes() for path in (llava, same, other)]
    assert weights[0] == weights[1] != weights[2]


def test_half_precision_is_stored_as_such(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(make_random_checkpoint(tmp_path / "half", precision="fp16"))
    assert checkpoint.config.random_weights
    with safe_open(tmp_path / "half" / "model.safetensors", framework="pt") as file:
        dtypes = {file.get_tensor(name).dtype for name in file.keys()}
    assert dtypes == {torch.float16}
    assert torch.get_default_dtype() == torch.float32


def test_shards_hold_the_same_tensors(llava: Path, tmp_path: Path) -> None:
    sharded = make_random_checkpoint(tmp_path / "sharded", "tiny", shard_bytes=500_000)
    assert len(list(sharded.glob("*.safetensors"))) > 2
    one, many = Checkpoint.open(llava), Checkpoint.open(sharded)
    assert one.config == many.config
    for name in required_tensors(one.config):
        tensors = [each.weights.load(name, torch.float32) for each in (one, many)]
        assert torch.equal(*tensors), name


def test_tokenizer_and_template_form_a_prompt(llava: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llava)
    assert len(tokenizer) <= 512
    question = [{"type": "video"}, {"type": "text", "text": "What is on the table now?"}]
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": question},
    ]
    template = jinja2.Template((llava / "chat_template.jinja").read_text())
    text = template.render(messages=messages, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system \nYou are a helpful assistant.<|im_end|>"
        "<|im_start|>user <video>\nWhat is on the table now?<|im_end|>"
        "<|im_start|>assistant\n"
    )
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert ids.count(tokenizer.convert_tokens_to_ids("<video>")) == 1


def test_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        make_random_checkpoint(tmp_path / "checkpoint", "large")
    assert str(caught.value) == (
        "unknown preset: required tiny or llava-onevision-0.5b or llava-onevision-7b, found large"
    )
    assert not list(tmp_path.iterdir())


def test_script_writes_the_same_checkpoint(llava: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    root = str(SCRIPT.parents[1])
    done = subprocess.run(
        [sys.executable, SCRIPT, folder],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": root, "PATH": ""},
    )
    assert done.stdout == f"{folder}\n"
    assert json.loads((folder / "config.json").read_text()) == json.loads(
        (llava / "config.json").read_text()
    )
    assert (folder / "model.safetensors").read_bytes() == (llava / "model.safetensors").read_bytes()
    wrong = subprocess.run(
        [sys.executable, SCRIPT, folder, "--preset", "large"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": root, "PATH": ""},
    )
    assert wrong.returncode == SettingsError.exit_code
    assert wrong.stderr.startswith("error: unknown preset: ")
