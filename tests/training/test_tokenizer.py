"""A word is a token, text survives, and transformers reads the same ids."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from hermes_edge.export.random_checkpoint import SPECIAL_TOKENS
from hermes_edge.memory.probes import GLOBAL_GUIDANCE, LOCAL_GUIDANCE
from hermes_edge.runtime.text import DEFAULT_SYSTEM_TEXT, TextCodec
from hermes_edge.synthetic import KINDS, make_stream, pick_questions
from hermes_edge.synthetic.questions import LETTERS
from hermes_edge.training.model import WORDS

NAMES = {*WORDS, *LETTERS}

# Of unknown words, other scripts, joined emoji, marks that combine, controls, spaces of all kinds.
TEXTS = (
    "",
    " ",
    "  two  spaces\n\n\tand a tab ",
    "Rings, RINGS and ring-like things; 12345 of 'em (E) (a) ((A))",
    "Où est l'étoile ? Ça va, Straße, ĳ",
    "红色的圆环在哪里\uff1f",
    "أين الحلقة",
    "e\u0301 != \u00e9",
    "👩‍🚀🏳️‍🌈 ring👍🏽star",
    "\x00\x1f\x7f\u200b\ufeff\u2028",
    "\U0010ffff\ue000",
)


@pytest.mark.parametrize("word", [*WORDS, *LETTERS])
@pytest.mark.parametrize("before", ["", " "])
def test_a_word_is_one_token(tokenizer: Tokenizer, word: str, before: str) -> None:
    ids = tokenizer.encode(before + word).ids
    assert len(ids) == 1
    assert tokenizer.decode(ids) == before + word


def questions() -> dict[str, str]:
    """Texts of questions with their kinds, in both forms."""
    found: dict[str, str] = {}
    for seed in range(60):
        stream, chance = make_stream(seed, 40), random.Random(seed)
        for share in (0.0, 1.0):
            for question in pick_questions(stream, 60, chance, choice_share=share):
                form = "choice" if question.choice else "open"
                found[f"{question.text} {question.answer}"] = f"{question.kind} {form}"
    return found


def test_questions_and_answers_survive_and_their_words_stay_whole(codec: TextCodec) -> None:
    texts = questions()
    chosen = {f"{kind} choice" for kind in KINDS if kind not in ("existence", "count", "order")}
    assert set(texts.values()) == {*(f"{kind} open" for kind in KINDS), *chosen}
    assert len(texts) > 1000
    for text in texts:
        ids = codec.encode(text)
        assert codec.decode(ids) == text
        tokens = [codec.decode([token]) for token in ids]
        words = [word for word in text.replace("?", "").replace(",", "").split() if word in NAMES]
        assert words and words == [token.strip() for token in tokens if token.strip() in NAMES]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_any_text_survives(codec: TextCodec, text: str) -> None:
    assert codec.decode(codec.encode(text)) == text


def test_any_character_survives(codec: TextCodec) -> None:
    chance = random.Random(0)
    for _ in range(300):
        points = (chance.randrange(1 << chance.randint(7, 20)) for _ in range(20))
        text = "".join(map(chr, points)).encode("utf-8", "ignore").decode()
        assert codec.decode(codec.encode(text)) == text


def test_no_id_lies_outside_of_the_embedding_table(tokenizer: Tokenizer, model: Any) -> None:
    rows = model.get_input_embeddings().num_embeddings
    assert max(tokenizer.get_vocab(with_added_tokens=True).values()) < rows


def test_transformers_reads_the_same_ids(checkpoint: Path, tokenizer: Tokenizer) -> None:
    read: Any = AutoTokenizer
    reference = read.from_pretrained(checkpoint)
    whole = "<|im_start|>user <video>\nWhat came first? (A) ring<|im_end|><|im_start|>assistant\n"
    texts = [*TEXTS, *questions(), whole, LOCAL_GUIDANCE, GLOBAL_GUIDANCE]
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert reference(text, add_special_tokens=False)["input_ids"] == ids
        shown = reference.decode(ids, clean_up_tokenization_spaces=False)
        assert shown == tokenizer.decode(ids, skip_special_tokens=False)
    special = tokenizer.encode(whole).tokens
    assert {"<|im_start|>", "<|im_end|>", "<video>"} <= set(special)
    assert reference.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [*range(len(SPECIAL_TOKENS))]


def test_prompts_are_those_of_the_chat_template(checkpoint: Path, codec: TextCodec) -> None:
    read: Any = AutoTokenizer
    reference = read.from_pretrained(checkpoint)
    question = "What colour was the ring? (A) red (B) blue (C) cyan (D) white"
    content = [{"type": "video"}, {"type": "text", "text": question}]
    messages = [
        {"role": "system", "content": DEFAULT_SYSTEM_TEXT},
        {"role": "user", "content": content},
    ]
    text = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    video = reference.convert_tokens_to_ids("<video>")
    ids = [*codec.prefix_ids(None), video, *codec.question_ids(question)]
    assert reference(text, add_special_tokens=False)["input_ids"] == ids
