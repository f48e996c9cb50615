"""Questions at their times: a stream is fed, and each is asked once the video has reached it."""

from __future__ import annotations

import math
import re
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


def parse_question(text: str, names: Sequence[str] = ()) -> TimedQuestion:
    """``0:12 What is happening?`` or ``door@0:12 Who comes?`` to stream, time and question.

    Args:
        names: of all streams. A text that begins with one and an ``@`` means that stream; else,
            where no time begins the text, the name is what stands before the first ``@TIME``.

    Raises:
        SettingsError: it does not begin with a time.
        QuestionError: nothing follows the time.
    """
    from hermes_edge.sources.redact import redacted_text  # loads OpenCV

    longest_first = sorted(names, key=len, reverse=True)
    for stream, rest in _divided(text.strip(), longest_first):
        at_s = _seconds(first_word := _first_word(rest))
        if at_s is None:
            continue
        if not (question := rest.strip()[len(first_word) :].strip()):
            shown = repr(redacted_text(text))
            raise QuestionError(f"--ask {shown} has no question", required='"TIME QUESTION"')
        return TimedQuestion(at_s, question, stream or None)
    # Hidden first and cut then: of a piece nobody could tell that it is a password.
    shown = redacted_text(text)
    rest = next((rest for _, rest in _divided(shown.strip(), longest_first)), "")
    raise SettingsError(
        f"--ask {shown!r} has no time",
        required=f'"TIME QUESTION" or "STREAM@TIME QUESTION", TIME as {TIME_FORM}',
        found=repr(_first_word(rest).rpartition("@")[2]),
        fix='Such as: --ask "0:12 What is happening?"',
    )


def _divided(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """All that may be a stream's name, none too, with what follows it; the likeliest first."""
    if known := [name for name in names if text.startswith(f"{name}@")]:
        yield from ((name, text[len(name) + 1 :]) for name in known)
        return
    yield "", text
    for at in re.finditer("@", text):
        yield text[: at.start()], text[at.end() :]


def _first_word(text: str) -> str:
    return (text.split(maxsplit=1) or [""])[0]


def _seconds(time: str) -> float | None:
    try:
        return parse_time(time)
    except SettingsError:
        return None


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
