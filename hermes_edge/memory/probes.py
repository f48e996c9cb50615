"""Guidance texts that stand in for the question to come (the paper's pseudo-queries).

Short on purpose: every token of a probe is a row of the decoder's pass at each compaction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LOCAL_GUIDANCE = (
    "Describe the present scene in detail: which objects are there, what is being done right now, "
    "and where things are."
)
GLOBAL_GUIDANCE = (
    "Tell the story so far: who appears, which events happened in which order, what changed, "
    "and the theme."
)

# An option ends where the next one begins, or with its line.
_OPTION = re.compile(r"(?:^|[\s(])([A-Z])[.):]\s*(.*?)(?=[\s(]+[A-Z][.):]\s|$)", re.MULTILINE)
_BARE_LETTER = re.compile(r"\(?([A-Z])[.):]*\Z")


@dataclass(frozen=True, slots=True)
class History:
    """The last question and what the model answered."""

    question: str
    answer: str


def probe_texts(history: History | None = None) -> tuple[str, str]:
    """Working probe ("local; global") and long-term probe (global), history in front of both."""
    context = "" if history is None else f"{_context(history)} "
    return f"{context}{LOCAL_GUIDANCE} {GLOBAL_GUIDANCE}", f"{context}{GLOBAL_GUIDANCE}"


def _context(history: History) -> str:
    return f"{history.question.strip()} {spelt_out(history).strip()}".strip()


def spelt_out(history: History) -> str:
    """The answer; a bare option letter becomes the text of that option of the question."""
    letter = _BARE_LETTER.match(history.answer.strip())
    if letter is None:
        return history.answer
    options = {name: text.strip() for name, text in _OPTION.findall(history.question)}
    return options.get(letter[1]) or history.answer
