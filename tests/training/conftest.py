"""An untrained model whose every weight is random, norms too, and batches for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from hermes_edge.export.random_checkpoint import randomise
from hermes_edge.runtime.text import TextCodec
from hermes_edge.training.batches import Packer
from hermes_edge.training.model import make_model, make_tokenizer, save_checkpoint, token_id


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """hermes-tiny's."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Any:
    """hermes-tiny's geometry."""
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


@pytest.fixture(scope="session")
def packer(codec: TextCodec, tokenizer: Tokenizer) -> Packer:
    """Of batches."""
    return Packer(codec, token_id(tokenizer, "<|im_end|>"))
