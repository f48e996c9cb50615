"""One small LLaVA-OneVision bundle and one small Qwen2 bundle, exported once per test run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM

from hermes_edge.export import export_checkpoint, make_random_checkpoint
from hermes_edge.export.random_checkpoint import randomise
from tests.conftest import made_once


class Recorder:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.nbytes: dict[str, int] = {}

    def started(self, stage: str) -> None:
        self.events.append(("started", stage))

    def finished(self, stage: str, seconds: float, nbytes: int) -> None:
        self.events.append(("finished", stage))
        self.nbytes[stage] = nbytes


def make_qwen2(folder: Path, layers: int, *, tied: bool = False) -> Path:
    """A Qwen2 checkpoint with random weights and no tokenizer."""
    config = Qwen2Config(
        vocab_size=96,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        eos_token_id=5,
    )
    model = Qwen2ForCausalLM(config)
    randomise(model, seed=1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LLaVA-OneVision checkpoint."""
    return make_random_checkpoint(tmp_path_factory.mktemp("checkpoints") / "llava", "tiny")


def with_layers(checkpoint: Path, decoder: int, tower: int) -> Path:
    """The checkpoint without its last layers: an export takes its time by the layer."""
    file = checkpoint / "config.json"
    config = json.loads(file.read_text())
    config["vision_config"]["num_hidden_layers"] = tower
    config["text_config"]["num_hidden_layers"] = decoder
    del config["text_config"]["layer_types"]
    file.write_text(json.dumps(config))
    return checkpoint


@pytest.fixture(scope="session")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA-OneVision checkpoint whose decoder has four layers and whose tower has two."""
    folder = tmp_path_factory.mktemp("shallow") / "llava"
    return with_layers(make_random_checkpoint(folder), decoder=4, tower=2)


@pytest.fixture(scope="session")
def llava_bundle(shallow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported in fp32 with every graph, and verified; what was reported lies beside it."""

    def export(folder: Path) -> None:
        recorder = Recorder()
        export_checkpoint(shallow, folder / "llava", embedding_probe=True, progress=recorder)
        (folder / "progress.json").write_text(json.dumps([recorder.events, recorder.nbytes]))

    return made_once(tmp_path_factory, "llava-bundle", export) / "llava"


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 checkpoint of three layers, embeddings not tied."""
    return make_qwen2(tmp_path_factory.mktemp("checkpoints") / "qwen2", layers=3)


@pytest.fixture(scope="session")
def qwen2_bundle(qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported in fp16 with the newer opset, and verified."""

    def export(folder: Path) -> None:
        options: dict[str, Any] = {"opset": 23, "tokens_per_frame": 4, "chunk_frames": 2}
        export_checkpoint(qwen2, folder, precision="fp16", **options)

    return made_once(tmp_path_factory, "qwen2-bundle", export)
