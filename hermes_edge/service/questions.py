"""Questions at their times: a stream is fed, and each is asked once the video has reached it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_edge.errors import QuestionError, SettingsError
from hermes_edge.units import TIME_FORM, parse_time

if TYPE_CHECKING:
    from hermes_edge.sources import Frame


@dataclass(frozen=True, slots=True)
class TimedQuestion:
    """A question and the second of the video at which it is asked; infinity is the end.

    ``stream``: the name of the one that is asked, or None for all.
    """

    at_s: float
    text: str
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class DueQuestion:
    """A question whose time has come; ``late`` where the video ended before that time."""

    question: TimedQuestion
    late: bool


def parse_question(text: str) -> TimedQuestion:
    """``0:12 What is happening?`` or ``door@0:12 Who comes?`` to stream, time and question.

    Raises:
        SettingsError: it does not begin with a time.
        QuestionError: nothing follows the time.
    """
    head, _, question = text.strip().partition(" ")
    stream, _, time = head.rpartition("@")
    try:
        at_s = parse_time(time)
    except SettingsError as error:
        raise SettingsError(
            f"--ask {text!r} has no time",
            required=f'"TIME QUESTION" or "STREAM@TIME QUESTION", TIME as {TIME_FORM}',
            found=repr(time),
            fix='Such as: --ask "0:12 What is happening?"',
        ) from error
    if not question.strip():
        raise QuestionError(f"--ask {text!r} has no question", required='"TIME QUESTION"')
    return TimedQuestion(at_s, question.strip(), stream or None)


def feed_until_due(
    feed: Callable[[Frame], object],
    frames: Iterable[Frame | float],
    questions: Sequence[TimedQuestion],
    *,
    to_the_end: bool = False,
) -> Iterator[DueQuestion]:
    """Feed frames and yield every question as it falls due, in the order of their times.

    All frames up to a question's time are fed before it is yielded. Frames after the last question
    are not decoded, but where there is none, or ``to_the_end``. A number among the frames is a
    time that has come without one.
    """
    waiting = sorted(questions, key=lambda question: question.at_s)
    newest_s = -math.inf
    for frame in frames:
        now_s = frame if isinstance(frame, float) else frame.time_s
        while waiting and waiting[0].at_s < now_s:
            yield DueQuestion(waiting.pop(0), late=False)
        if questions and not waiting and not to_the_end:
            return
        if not isinstance(frame, float):
            feed(frame)
            newest_s = frame.time_s
    for question in waiting:
        at_end = math.isinf(question.at_s) or question.at_s <= newest_s
        yield DueQuestion(question, late=not at_end)
