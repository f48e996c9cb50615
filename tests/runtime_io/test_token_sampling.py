"""Sampling against transformers' own processors, stop strings against a whole-text search."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from hermes_edge.errors import EngineError, SettingsError
from hermes_edge.runtime.sampling import Sampler, SamplingParams, StopScanner, nucleus

VOCABULARY = 500


def random_logits(seed: int) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(VOCABULARY) * 3).astype(np.float32)


def test_greedy_takes_the_largest_and_the_lowest_id_on_ties() -> None:
    logits = random_logits(0)
    logits[[17, 40]] = 99.0
    assert Sampler(SamplingParams()).pick(logits, []) == 17


@pytest.mark.parametrize("penalty", [1.1, 1.7, 0.6])
def test_repetition_penalty_equals_transformers(penalty: float) -> None:
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    sampler = Sampler(SamplingParams(repetition_penalty=penalty))
    generated: list[int] = []
    for step in range(40):
        logits = random_logits(step // 10)  # the same for ten steps: repetition would win
        expected = torch.from_numpy(logits)[None]
        if generated:
            expected = processor(torch.tensor([generated]), expected)
        before = logits.copy()
        token = sampler.pick(logits, generated)
        np.testing.assert_array_equal(logits, before)
        assert token == int(expected.argmax())
        generated.append(token)
    assert len(set(generated)) > 4 or penalty < 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.8])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_nucleus_equals_transformers(temperature: float, top_p: float) -> None:
    for seed in range(5):
        logits = random_logits(seed)
        warped = TopPLogitsWarper(top_p)(
            torch.zeros((1, 1), dtype=torch.long),
            torch.from_numpy(logits).double()[None] / temperature,
        )
        expected = torch.softmax(warped, dim=-1)[0].numpy()
        tokens, probabilities = nucleus(logits, temperature, top_p)
        assert set(tokens.tolist()) == set(np.flatnonzero(expected).tolist())
        np.testing.assert_allclose(probabilities, expected[tokens], rtol=1e-12)
        assert (np.diff(probabilities) <= 0).all()


def test_drawn_tokens_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(SamplingParams(temperature=1.0, top_p=0.9, seed=3))
    counts = np.bincount([sampler.pick(logits, []) for _ in range(4000)], minlength=4)
    # Five standard deviations of the share of 4000 draws are below 0.04.
    np.testing.assert_allclose(counts / 4000, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], atol=0.04)
    assert counts[3] == 0


def test_equal_seeds_give_equal_tokens_and_others_do_not() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed))
        return [sampler.pick(random_logits(step), []) for step in range(20)]

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)


@pytest.mark.parametrize("temperature", [1e-320, 1e-6])
def test_a_very_small_temperature_is_greedy(temperature: float) -> None:
    logits = random_logits(1)
    sampler = Sampler(SamplingParams(temperature=temperature, seed=0))
    assert sampler.pick(logits, []) == logits.argmax()


def test_a_very_small_top_p_keeps_the_best_token() -> None:
    logits = random_logits(2)
    sampler = Sampler(SamplingParams(temperature=1.0, top_p=1e-9, seed=0))
    assert {sampler.pick(logits, []) for _ in range(20)} == {int(logits.argmax())}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_engine_error(bad: float) -> None:
    logits = random_logits(0)
    logits[[3, 9]] = bad
    with pytest.raises(EngineError) as failed:
        Sampler(SamplingParams()).pick(logits, [])
    assert str(failed.value) == (
        "the decoder's output logits is not finite: required 500 finite values, found 2 that are "
        "NaN or infinite. Half precision can overflow: export in fp32, or check the weights."
    )


@pytest.mark.parametrize("penalty", [1e-300, 1e-38, 1e38, 1e300])
@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1.0, 1e300])
def test_extreme_penalties_leave_tokens_to_pick(penalty: float, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, repetition_penalty=penalty, seed=1)
    logits = np.array([0.0, -5.0, 5.0, 1.0], dtype=np.float32)
    assert Sampler(params).pick(logits, [0, 1, 2]) in range(4)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"max_new_tokens": 0},
            "max_new_tokens is out of range: required a whole number, at least 1, found 0",
        ),
        (
            {"max_new_tokens": 2.5},
            "max_new_tokens is out of range: required a whole number, at least 1, found 2.5",
        ),
        (
            {"temperature": -0.1},
            "temperature is out of range: required 0 (greedy) or more, found -0.1",
        ),
        (
            {"temperature": float("nan")},
            "temperature is out of range: required 0 (greedy) or more, found nan",
        ),
        ({"top_p": 0.0}, "top_p is out of range: required above 0 and at most 1, found 0.0"),
        ({"top_p": 1.1}, "top_p is out of range: required above 0 and at most 1, found 1.1"),
        (
            {"repetition_penalty": 0.0},
            "repetition_penalty is out of range: required above 0 (1 for none), found 0.0",
        ),
        (
            {"max_new_tokens": True},
            "max_new_tokens is out of range: required a whole number, at least 1, found True",
        ),
        (
            {"temperature": 10**400},
            f"temperature is out of range: required 0 (greedy) or more, found {10**400}",
        ),
        (
            {"seed": -1},
            "seed is out of range: required a whole number, 0 or more, found -1",
        ),
        (
            {"seed": 1.5},
            "seed is out of range: required a whole number, 0 or more, found 1.5",
        ),
        (
            {"temperature": None},
            "temperature is out of range: required 0 (greedy) or more, found None",
        ),
        ({"top_p": "1"}, "top_p is out of range: required above 0 and at most 1, found '1'"),
        ({"stop": [1]}, "stop is no tuple: required a tuple of strings, found [1]"),
        ({"stop": ("a", "")}, "a stop string is empty: required at least one character"),
        ({"stop": "end"}, "stop is no tuple: required a tuple of strings, found 'end'"),
    ],
)
def test_parameters_out_of_range(values: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        SamplingParams(**values)
    assert str(refused.value) == text


def cut(text: str, stop: tuple[str, ...]) -> str:
    """The definition: before the stop string that is complete first, in the longest reading."""
    for end in range(len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)]
    return text


@pytest.mark.parametrize("stop", [(), ("b",), ("ab", "ba"), ("aab", "c"), ("abcab", "cc", "bca")])
def test_stop_scanner_equals_the_definition_however_the_text_is_cut(stop: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    stopped = 0
    for _ in range(400):
        text = "".join(random.choice(list("abc"), size=int(random.integers(0, 14))))
        bounds = np.sort(random.integers(0, len(text) + 1, size=int(random.integers(0, 6))))
        pieces = [text[a:b] for a, b in itertools.pairwise([0, *bounds.tolist(), len(text)])]
        scanner, released = StopScanner(stop), ""
        for piece in pieces:
            released += scanner.push(piece)
            assert cut(text, stop).startswith(released), "text was released that had to be held"
        assert released + scanner.finish() == cut(text, stop)
        assert scanner.stopped == (cut(text, stop) != text)
        stopped += scanner.stopped
    assert (stopped > 100) == bool(stop)


def test_stop_scanner_holds_no_more_than_it_must() -> None:
    scanner = StopScanner(("\nUser:",))
    assert scanner.push("Hello") == "Hello"
    assert scanner.push(" you\nUs") == " you"
    assert scanner.push("ed") == "\nUsed"
    assert scanner.push("\nUser: more") == ""
    assert scanner.stopped
    assert scanner.push("ignored") == ""
    assert scanner.finish() == ""
