"""One small LLaVA-OneVision bundle and one small Qwen2 bundle, exported once per test run."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM

from hermes_edge.export import export_checkpoint, make_random_checkpoint
from hermes_edge.export.random_checkpoint import randomise
from hermes_edge.manifest import Manifest


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


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    """What the export of the LLaVA-OneVision bundle reported."""
    return Recorder()


@pytest.fixture(scope="session")
def llava_bundle(llava: Path, tmp_path_factory: pytest.TempPathFactory, recorder: Recorder) -> Path:
    """Exported in fp32 with every graph, and verified."""
    target = tmp_path_factory.mktemp("bundles") / "llava"
    export_checkpoint(llava, target, embedding_probe=True, progress=recorder)
    return target


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 checkpoint of three layers, embeddings not tied."""
    return make_qwen2(tmp_path_factory.mktemp("checkpoints") / "qwen2", layers=3)


@pytest.fixture(scope="session")
def qwen2_bundle(qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Exported in fp16 with the newer opset, and verified."""
    target = tmp_path_factory.mktemp("bundles") / "qwen2"
    manifest = export_checkpoint(
        qwen2, target, precision="fp16", opset=23, tokens_per_frame=4, chunk_frames=2
    )
    return target, manifest
