"""Questions at their times: a stream is fed, and each is asked once the video has reached it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_edge.errors import QuestionError, SettingsError
from hermes_edge.units import parse_time

if TYPE_CHECKING:
    from hermes_edge.runtime import Frame, Session


@dataclass(frozen=True, slots=True)
class TimedQuestion:
    """A question and the second of the video at which it is asked; infinity is the end."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class DueQuestion:
    """A question whose time has come; ``late`` where the video ended before that time."""

    question: TimedQuestion
    late: bool


def parse_question(text: str) -> TimedQuestion:
    """``0:12 What is happening?`` to time and question.

    Raises:
        SettingsError: it does not begin with a time.
        QuestionError: nothing follows the time.
    """
    time, _, question = text.strip().partition(" ")
    try:
        at_s = parse_time(time)
    except SettingsError as error:
        raise SettingsError(
            f"--ask {text!r} has no time",
            required='"TIME QUESTION", TIME as M:SS, H:MM:SS, seconds or end',
            found=repr(time),
            fix='Such as: --ask "0:12 What is happening?"',
        ) from error
    if not question.strip():
        raise QuestionError(f"--ask {text!r} has no question", required='"TIME QUESTION"')
    return TimedQuestion(at_s, question.strip())


def feed_until_due(
    session: Session, frames: Iterable[Frame], questions: Sequence[TimedQuestion]
) -> Iterator[DueQuestion]:
    """Feed frames and yield every question as it falls due, in the order of their times.

    All frames up to a question's time are fed before it is yielded. Frames after the last question
    are not decoded.
    """
    waiting = sorted(questions, key=lambda question: question.at_s)
    for frame in frames:
        while waiting and waiting[0].at_s < frame.time_s:
            yield DueQuestion(waiting.pop(0), late=False)
        if not waiting:
            return
        session.feed(frame.image, at=frame.time_s)
    for question in waiting:
        at_end = math.isinf(question.at_s) or question.at_s <= session.memory().newest_s
        yield DueQuestion(question, late=not at_end)
