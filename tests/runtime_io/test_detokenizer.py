"""Text of answers, piece by piece."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hermes_edge.runtime.text import Detokenizer, TextCodec


def pieces_of(codec: TextCodec, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(codec)
    return [*(detokenizer.push(id_) for id_ in ids), detokenizer.finish()]


def test_pieces_of_text_never_hold_half_a_character(codec: TextCodec) -> None:
    text = "Caf\u00e9 \u4f60\u597d \U0001f3a5\U0001f468\u200d\U0001f469 done"
    ids = codec.encode(text)
    assert len(ids) > len(text), "characters must span tokens for this test to say anything"
    pieces = pieces_of(codec, ids)
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert pieces[-1] == ""


def test_pieces_equal_the_decoded_whole_for_any_ids(codec: TextCodec, tokenizer: Any) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        ids = random.integers(0, tokenizer.get_vocab_size(), size=30).tolist()
        whole = codec.decode(ids)
        assert "".join(pieces_of(codec, ids)) == whole
        added = tokenizer.get_added_tokens_decoder()
        special = {id_ for id_, token in added.items() if token.special}
        kept = [id_ for id_ in ids if id_ not in special]
        assert whole == tokenizer.decode(kept, skip_special_tokens=False)


def test_a_real_replacement_character_comes_through(codec: TextCodec) -> None:
    text = "a \ufffd\ufffd\ufffd\ufffd\ufffd b\ufffd"
    assert "".join(pieces_of(codec, codec.encode(text))) == text


def test_a_text_that_ends_in_half_a_character_says_so(codec: TextCodec) -> None:
    ids = codec.encode("ok \U0001f3a5")[:-1]
    pieces = pieces_of(codec, ids)
    assert "".join(pieces[:-1]) == "ok "
    assert pieces[-1] == "\ufffd"


def test_decoders_that_join_words_keep_their_spaces(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "\u2581one": 1, "\u2581two": 2}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    codec = TextCodec.open(tmp_path, "<video>")
    ids = [1, 2, 1, 1]
    assert "".join(pieces_of(codec, ids)) == codec.decode(ids) == "one two one one"


def test_work_per_token_does_not_grow_with_the_answer(
    codec: TextCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, longest = codec.decode, 0

    def watched(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    text = "What happened in the video? " * 40
    ids = codec.encode(text)
    monkeypatch.setattr(codec, "decode", watched)
    assert "".join(pieces_of(codec, ids)) == text
    assert longest < 10
