"""Guidance texts, and what the last question adds to them."""

import pytest

from hermes_edge.memory import History, probe_texts
from hermes_edge.memory.probes import GLOBAL_GUIDANCE, LOCAL_GUIDANCE

COLOURS = "Which colour?\nA. dark red\nB. blue"


def test_the_working_probe_is_local_then_global_and_the_long_term_probe_global() -> None:
    working, long_term = probe_texts()
    assert working.startswith(LOCAL_GUIDANCE) and working.endswith(GLOBAL_GUIDANCE)
    assert long_term == GLOBAL_GUIDANCE
    assert LOCAL_GUIDANCE not in long_term


@pytest.mark.parametrize("guidance", [LOCAL_GUIDANCE, GLOBAL_GUIDANCE])
def test_guidance_is_short(guidance: str) -> None:
    assert 12 <= len(guidance.split()) <= 24


def test_history_comes_first_in_both_probes() -> None:
    working, long_term = probe_texts(History("  Who came in? ", " A man with a dog. "))
    context = "Who came in? A man with a dog. "
    assert working == context + probe_texts()[0]
    assert long_term == context + probe_texts()[1]


@pytest.mark.parametrize("answer", ["A", "A.", "(A)", "A)", "(A", " A\n"])
@pytest.mark.parametrize(
    "question",
    [
        COLOURS,
        f"{COLOURS}\nBest option: (",
        "Which colour? (A) dark red (B) blue",
        "Which colour? A. dark red B. blue",
        "Which colour?\n(A) dark red\n(B) blue",
        "Which colour?\nA) dark red\nB) blue",
        "Which colour?\nB. blue\nA. dark red\nAnswer with the letter alone.",
    ],
)
def test_an_option_letter_becomes_the_text_of_the_option(question: str, answer: str) -> None:
    _, long_term = probe_texts(History(question, answer))
    assert long_term == f"{question} dark red {GLOBAL_GUIDANCE}"


@pytest.mark.parametrize(
    "question",
    [f"{COLOURS}\nBest option: (", f"{COLOURS}\nAnswer with the letter alone.", COLOURS],
)
def test_the_last_option_ends_with_its_line(question: str) -> None:
    _, long_term = probe_texts(History(question, "B"))
    assert long_term == f"{question} blue {GLOBAL_GUIDANCE}"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which colour?", "B"),
        (COLOURS, "C"),
        (COLOURS, "Blue"),
        (COLOURS, "B is right"),
        (COLOURS, ""),
    ],
)
def test_any_other_answer_stays_as_it_is(question: str, answer: str) -> None:
    _, long_term = probe_texts(History(question, answer))
    assert long_term == f"{question} {answer}".strip() + f" {GLOBAL_GUIDANCE}"
