"""Text to token ids and back, over a bundle's ``tokenizer.json`` and ``chat_template.jinja``.

A prompt is one chat turn cut in two where the video stands: the *prefix* (system text, header of
the user's turn) is encoded once, the *question part* once per question.

The control tokens of a turn come from the template alone. Text of users is data: it is encoded with
every added token of the vocabulary disabled, so ``<|im_end|>`` in a question becomes ordinary
characters. For text without such strings the ids are those of the checkpoint's own tokenizer over
the rendered template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer

from hermes_edge.errors import BundleError, QuestionError, SettingsError
from hermes_edge.manifest import CHAT_TEMPLATE_NAME, TOKENIZER_NAME

DEFAULT_SYSTEM_TEXT = "You are a helpful assistant."

# Private-use characters stand in for what is not known yet; no template contains them.
_SYSTEM, _QUESTION, _VIDEO = "\ue000", "\ue001", "\ue002"
_REPLACEMENT = "\ufffd"
# A character of UTF-8 lacks at most three bytes' worth of replacement characters.
_MAX_OPEN_CHARACTERS = 3
_REEXPORT = "Export again with: hermes-edge export CHECKPOINT -o BUNDLE"


@dataclass(frozen=True, slots=True)
class _Turn:
    """A chat turn around its video, placeholders in place of the texts."""

    before_video: str
    after_video: str


class TextCodec:
    """Token ids of prompts and text of token ids; holds no state of a session."""

    def __init__(self, tokenizer: Tokenizer, render: Callable[[bool], _Turn]) -> None:
        added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
        self._control_ids = frozenset(id_ for id_, token in added.items() if token.special)
        self._added_ids = {token.content: id_ for id_, token in added.items()}
        # Unknown words get an added token too, in models that are not byte-level.
        unknown: str = getattr(tokenizer.model, "unk_token", None) or ""
        self._refused_ids = frozenset(added) - {self._added_ids.get(unknown)}
        contents = sorted(self._added_ids, key=len, reverse=True)
        self._added_pattern = re.compile(f"({'|'.join(map(re.escape, contents))})")
        # Only special tokens can be disabled in text, so every added token is made one.
        tokenizer.add_special_tokens(
            [AddedToken(token.content, special=True, normalized=False) for token in added.values()]
        )
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._render = render
        self._turn = render(True)

    @classmethod
    def open(cls, folder: Path, video_token: str | None) -> TextCodec:
        """Load the tokenizer and chat template of a bundle.

        Args:
            folder: holds ``tokenizer.json`` and, or not, ``chat_template.jinja``; without one, the
                turn is that of LLaVA-OneVision.
            video_token: text that the template renders for a video. With None the template takes
                messages of plain text, and the video stands before the question.

        Raises:
            BundleError: a file is missing or damaged, or the template does not render one video
                between the system text and the question.
        """
        path = folder / TOKENIZER_NAME
        tokenizer_json = _read_text(path)
        if tokenizer_json is None:
            raise BundleError(f"{folder} has no {TOKENIZER_NAME}", fix=_REEXPORT)
        try:
            tokenizer = Tokenizer.from_str(tokenizer_json)
        # The tokenizers library raises plain Exception.
        except Exception as error:
            raise BundleError(f"{path} is damaged", found=str(error), fix=_REEXPORT) from None
        return cls(tokenizer, _renderer(folder / CHAT_TEMPLATE_NAME, video_token))

    def prefix_ids(self, system: str | None) -> list[int]:
        """Ids of everything before the video: system text and header of the user's turn.

        Args:
            system: the system text; None for the default one, empty for none at all.

        Raises:
            SettingsError: the text is not valid Unicode.
            BundleError: ``system`` is empty and the template cannot do without.
        """
        text = DEFAULT_SYSTEM_TEXT if system is None else system
        if not _is_unicode(text):
            raise SettingsError("the system text is not text", required="UTF-8", found=ascii(text))
        turn = self._turn if text else self._render(False)
        return self._encode_turn(turn.before_video, _SYSTEM, text)

    def question_ids(self, question: str) -> list[int]:
        """Ids of everything behind the video: question, end of turn, header of the answer.

        Raises:
            QuestionError: the question is empty, not valid Unicode, or spells a control token.
        """
        if not question.strip():
            raise QuestionError("the question is empty", fix="Ask something")
        _require_unicode(question, "the question")
        return self._encode_turn(self._turn.after_video, _QUESTION, question)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, never of control tokens.

        Raises:
            QuestionError: the text is not valid Unicode, or spells a control token.
        """
        _require_unicode(text, "the text")
        return self._encode_plain(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids without control tokens; bytes that are not UTF-8 become U+FFFD."""
        kept = [id_ for id_ in ids if id_ not in self._control_ids]
        text: str = self._tokenizer.decode(kept, skip_special_tokens=False)
        return text

    def _encode_plain(self, text: str) -> list[int]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        # Where control tokens are words of the vocabulary, disabling them is not enough.
        for id_, token in zip(encoding.ids, encoding.tokens, strict=True):
            if id_ in self._refused_ids:
                raise QuestionError("the text spells a control token", found=token)
        ids: list[int] = encoding.ids
        return ids

    def _encode_turn(self, part: str, placeholder: str, text: str) -> list[int]:
        """Control tokens by name, all else as plain text; ``text`` is put in afterwards."""
        ids: list[int] = []
        for piece in self._added_pattern.split(part) if self._added_ids else [part]:
            if piece in self._added_ids:
                ids.append(self._added_ids[piece])
            elif piece:
                ids += self._encode_plain(piece.replace(placeholder, text))
        return ids


class Detokenizer:
    """Text of one answer, piece by piece; a character is held back until it is complete.

    The pieces together are :meth:`TextCodec.decode` of all ids.
    """

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._context: list[int] = []
        self._pending: list[int] = []
        self._sent_characters = 0

    def push(self, token_id: int) -> str:
        """Take the next id; return the text that is now certain, often one word, or nothing."""
        self._pending.append(token_id)
        text = self._pending_text()
        open_characters = len(text) - len(text.rstrip(_REPLACEMENT))
        certain = text[: len(text) - min(open_characters, _MAX_OPEN_CHARACTERS)]
        piece = certain[self._sent_characters :]
        self._sent_characters += len(piece)
        if text and not open_characters:
            self._context, self._pending, self._sent_characters = self._pending, [], 0
        return piece

    def finish(self) -> str:
        """What is still held back: characters that stayed incomplete, as U+FFFD."""
        piece = self._pending_text()[self._sent_characters :]
        self._context, self._pending, self._sent_characters = [], [], 0
        return piece

    def _pending_text(self) -> str:
        # Decoders that join words need the ids before: a first word has no space in front of it.
        before = self._codec.decode(self._context)
        return self._codec.decode(self._context + self._pending)[len(before) :]


class _GenerationTag(Extension):
    """Accepts ``{% generation %}``, with which templates mark answers for training."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _renderer(path: Path, video_token: str | None) -> Callable[[bool], _Turn]:
    """A function from "with a system message" to the turn; checks what it renders."""
    source = _read_text(path)
    if source is None:
        return _default_turn
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
    )
    environment.globals["raise_exception"] = _raise_exception
    mark = _VIDEO if video_token is None else video_token

    def render(with_system: bool) -> _Turn:
        try:
            rendered = environment.from_string(source).render(
                messages=_messages(with_system, as_parts=video_token is not None),
                add_generation_prompt=True,
            )
        # A template is a program, and can fail in any way that one can.
        except Exception as error:
            raise BundleError(f"{path} cannot be rendered", found=str(error)) from None
        names = {_SYSTEM: "system text", mark: "video", _QUESTION: "question"}
        order = [names[found] for found in re.findall("|".join(map(re.escape, names)), rendered)]
        required = list(names.values())[0 if with_system else 1 :]
        if order != required:
            raise BundleError(
                f"{path} does not fit a video and a question",
                required=", ".join(required),
                found=", ".join(order) or "none of them",
            )
        before, after = rendered.split(mark)
        return _Turn(before, after)

    return render


def _messages(with_system: bool, *, as_parts: bool) -> list[dict[str, Any]]:
    """Messages with placeholders, as Hugging Face gives them to a template."""
    system: Any = _SYSTEM
    user: Any = f"{_VIDEO}\n{_QUESTION}"
    if as_parts:
        system = [{"type": "text", "text": _SYSTEM}]
        user = [{"type": "video"}, {"type": "text", "text": _QUESTION}]
    messages = [{"role": "system", "content": system}] if with_system else []
    return [*messages, {"role": "user", "content": user}]


def _default_turn(with_system: bool) -> _Turn:
    """The turn of LLaVA-OneVision: with the default system text, a prefix of 13 tokens."""
    system = f"<|im_start|>system \n{_SYSTEM}<|im_end|>" if with_system else ""
    return _Turn(f"{system}<|im_start|>user ", f"\n{_QUESTION}<|im_end|><|im_start|>assistant\n")


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _read_text(path: Path) -> str | None:
    """The file's text, None where it does not exist."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"cannot read {path}", found=str(error), fix=_REEXPORT) from None


def _is_unicode(text: str) -> bool:
    """False where bytes that are not UTF-8 came in as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _require_unicode(text: str, name: str) -> None:
    if not _is_unicode(text):
        raise QuestionError(
            f"{name} is not text",
            required="UTF-8",
            found=ascii(text),
            fix="Set a UTF-8 locale, for example LC_ALL=C.UTF-8",
        )
