"""The memories that are compared, and how each answers the questions of one stream.

    tokens     [F*N, E], visual tokens of the whole stream
    moments    frames at which questions are asked, ascending

A memory is fed up to a moment, its open chunk is closed so that the budget holds, and all
questions of that moment are asked. Questions are given as token ids, which leaves no trace in the
probes: no question helps or disturbs another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_edge.errors import BudgetError, SettingsError
from hermes_edge.synthetic import Question

if TYPE_CHECKING:
    from hermes_edge.engines.views import Array
    from hermes_edge.runtime import Runtime, Session

FULL, LAST_FRAMES = "full", "last-frames"

POLICIES: dict[str, dict[str, Any]] = {
    FULL: {"policy": "full"},
    "window": {"policy": "window"},
    LAST_FRAMES: {"policy": "full"},
    "uniform": {"policy": "uniform"},
    "random": {"policy": "random"},
    "hermes-released/embedding": {"policy": "hermes-released", "scoring": "embedding"},
    "hermes-released/forward": {"policy": "hermes-released", "scoring": "forward"},
    "hermes": {"policy": "hermes"},
}
"""Session options by label. ``last-frames`` has no memory: it encodes the newest frames anew."""

MOST_CHUNK_FRAMES = 4
RESERVE_TOKENS = 96
_ANSWER_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Film:
    """A stream as the decoder sees it, with its questions by the frame at which they are asked."""

    tokens: Array
    questions: Mapping[int, Sequence[Question]]


Answered = list[bool | None]
"""Right or wrong by question, in the order of their times; None where it could not be asked."""


def check_policies(labels: Sequence[str]) -> None:
    """Refuse labels that are not known.

    Raises:
        SettingsError: one is unknown, or given twice.
    """
    for label in labels:
        if label not in POLICIES:
            raise SettingsError("unknown policy", required=", ".join(POLICIES), found=repr(label))
    if len(set(labels)) < len(labels) or not labels:
        raise SettingsError("policies are listed wrongly", required="each once", found=[*labels])


def answer_film(runtime: Runtime, label: str, budget_tokens: int, film: Film) -> Answered:
    """All questions of a film under one memory.

    Raises:
        BudgetError: the budget is smaller than a frame, or does not fit the model's positions.
    """
    if label == FULL:
        return _everything(runtime, film)
    tokens_per_frame = runtime.manifest.tokens_per_frame
    budget_frames = budget_tokens // tokens_per_frame
    if budget_frames < 1:
        raise BudgetError(
            "the budget is smaller than a frame",
            required=f"at least {tokens_per_frame} tokens",
            found=budget_tokens,
            fix="Raise the budget",
        )
    if label == LAST_FRAMES:
        return _afresh(runtime, film, budget_frames)
    options = POLICIES[label]
    with runtime.session(
        budget_tokens=budget_tokens,
        chunk_frames=min(budget_frames, MOST_CHUNK_FRAMES),
        reserve_tokens=RESERVE_TOKENS,
        **options,
    ) as session:
        return _in_order(session, film, runtime)


def _everything(runtime: Runtime, film: Film) -> Answered:
    """No eviction; nothing where the stream does not fit the model's positions."""
    try:
        session = runtime.session(
            policy="full", budget_tokens=len(film.tokens), reserve_tokens=RESERVE_TOKENS
        )
    except BudgetError:
        return [None] * sum(map(len, film.questions.values()))
    with session:
        return _in_order(session, film, runtime)


def _afresh(runtime: Runtime, film: Film, budget_frames: int) -> Answered:
    """For each moment a new memory of the newest frames, which know nothing of those before."""
    size = runtime.manifest.tokens_per_frame
    answered: Answered = []
    for moment, questions in film.questions.items():
        first = max(moment + 1 - budget_frames, 0)
        with runtime.session(
            policy="full",
            budget_tokens=budget_frames * size,
            reserve_tokens=RESERVE_TOKENS,
        ) as session:
            times = [float(frame) for frame in range(first, moment + 1)]
            session.feed_tokens(film.tokens[first * size : (moment + 1) * size], times)
            answered += [_right(session, question, runtime) for question in questions]
    return answered


def _in_order(session: Session, film: Film, runtime: Runtime) -> Answered:
    size = runtime.manifest.tokens_per_frame
    answered: Answered = []
    fed = 0
    for moment, questions in film.questions.items():
        rows = film.tokens[fed * size : (moment + 1) * size]
        session.feed_tokens(rows, [float(frame) for frame in range(fed, moment + 1)])
        session.flush()
        fed = moment + 1
        answered += [_right(session, question, runtime) for question in questions]
    return answered


def _right(session: Session, question: Question, runtime: Runtime) -> bool:
    from hermes_edge.runtime import SamplingParams

    if runtime.codec is None:
        raise RuntimeError("a bundle without tokenizer was let in")
    ids = runtime.codec.question_ids(question.text)
    answer = session.ask(ids, SamplingParams(max_new_tokens=_ANSWER_TOKENS))
    return answer.text.strip() == question.answer
