"""A tiny byte-level tokenizer, trained here, and a codec over it."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from hermes_edge.runtime.text import TextCodec

CORPUS = [
    "You are a helpful assistant.",
    "system user assistant",
    "What happened in the video? Who came, and why so late?",
]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<video>"]
PATTERN = r"'s|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level_tokenizer() -> Any:
    """Byte-level BPE as Qwen2 has it: NFC, a split pattern, control tokens behind the words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(CONTROL)
    # Not "special", yet not for users to write either.
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False)])
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Read only: a codec is opened from its file."""
    return byte_level_tokenizer()


@pytest.fixture
def codec(tmp_path: Path, tokenizer: Any) -> TextCodec:
    """Over the tokenizer and the default turn."""
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return TextCodec.open(tmp_path, "<video>")
