"""The text side of a bundle: tokenizer, chat template, end-of-answer and video tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from hermes_edge.errors import CheckpointError
from hermes_edge.export.checkpoint import Checkpoint
from hermes_edge.export.config import read_json_object
from hermes_edge.export.headers import Headers
from hermes_edge.manifest import CHAT_TEMPLATE_NAME, TOKENIZER_NAME

_END_OF_TURN = "<|im_end|>"


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What the manifest says of the text side."""

    video_token: str | None
    eos_token_ids: tuple[int, ...]


def write_text_files(checkpoint: Checkpoint | Headers, target: Path) -> TextFacts:
    """Write ``tokenizer.json`` and ``chat_template.jinja`` where the checkpoint has them.

    Raises:
        CheckpointError: a file is unreadable, or the tokenizer does not fit the model.
        OSError: ``target`` cannot be written.
    """
    tokenizer = _tokenizer(checkpoint.folder)
    template = _chat_template(checkpoint.folder)
    if template is not None:
        (target / CHAT_TEMPLATE_NAME).write_text(template, encoding="utf-8")
    eos = checkpoint.config.eos_token_ids
    if tokenizer is None:
        return TextFacts(None, eos)
    _check_fit(checkpoint, tokenizer)
    (target / TOKENIZER_NAME).write_text(tokenizer.to_str(), encoding="utf-8")
    end = tokenizer.token_to_id(_END_OF_TURN)
    if not eos and end is not None:
        eos = (end,)
    video = checkpoint.config.video_token_id
    return TextFacts(None if video is None else tokenizer.id_to_token(video), eos)


def _tokenizer(folder: Path) -> Any:
    path = folder / TOKENIZER_NAME
    try:
        if path.is_file():
            return Tokenizer.from_file(str(path))
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            # The two-file form names no added tokens; transformers knows where they are.
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(folder).backend_tokenizer
    # The tokenizers package raises plain Exception for every fault of a file.
    except Exception as error:
        raise CheckpointError(
            f"the tokenizer of {folder} cannot be read",
            required="tokenizer.json, or vocab.json with merges.txt",
            found=str(error),
            fix="Download the checkpoint again",
        ) from None
    return None


def _check_fit(checkpoint: Checkpoint | Headers, tokenizer: Any) -> None:
    vocabulary = checkpoint.config.decoder.vocabulary
    video = checkpoint.config.video_token_id
    problem = f"the tokenizer of {checkpoint.folder} does not fit its model"
    if (size := tokenizer.get_vocab_size()) > vocabulary:
        raise CheckpointError(problem, required=f"at most {vocabulary} tokens", found=size)
    if video is not None and tokenizer.id_to_token(video) is None:
        raise CheckpointError(
            problem, required=f"a video token with id {video}", found="no such token"
        )


def _chat_template(folder: Path) -> str | None:
    path = folder / CHAT_TEMPLATE_NAME
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path}", found=str(error)) from None
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            template = read_json_object(folder / name).get("chat_template")
            if isinstance(template, str):
                return template
    return None
