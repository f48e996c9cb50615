"""Bundles that several test folders share, and the reason why tests of a GPU are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_edge.engines.backends import open_backend
from hermes_edge.engines.bundle import Bundle
from hermes_edge.errors import HermesEdgeError

RANDOM_BUNDLE = Path(__file__).parent / "random-bundle"


@pytest.fixture(scope="session")
def random_bundle() -> Path:
    """A small bundle of random weights, norms too: 10 layers, E 64, 16 tokens a frame."""
    return RANDOM_BUNDLE


@pytest.fixture(scope="session")
def small_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ten layers whose rows are 256 bytes in fp32: TensorRT could bind them."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from hermes_edge.export.random_checkpoint import randomise

    config = Qwen2Config(
        vocab_size=96,
        hidden_size=128,
        intermediate_size=80,
        num_hidden_layers=10,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=0,
    )
    folder = tmp_path_factory.mktemp("checkpoints") / "small-decoder"
    model = Qwen2ForCausalLM(config)
    randomise(model, seed=7)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def static_bundle(small_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small decoder for static decoding, by the verb; frames of 8 tokens, chunks of two."""
    from typer.testing import CliRunner

    from hermes_edge.cli.app import app

    target = tmp_path_factory.mktemp("bundles") / "static"
    options = "--static-decode --tokens-per-frame 8 --chunk-frames 2"
    args = ["export", str(small_decoder), "-o", str(target), *options.split()]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.stderr
    return target


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` run where ONNX Runtime computes on a GPU, and say why elsewhere."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    try:
        backend = open_backend("cuda:0", "onnxruntime")
        backend.engine(Bundle.open(RANDOM_BUNDLE), "compact")
    except HermesEdgeError as error:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=str(error)))
