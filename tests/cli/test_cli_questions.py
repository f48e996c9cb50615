"""Questions: how they are written, and when they are asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes_edge.cli.output import clock, size, without_controls
from hermes_edge.errors import QuestionError, SettingsError
from hermes_edge.runtime import Frame, Runtime, Session, open_source
from hermes_edge.service.questions import TimedQuestion, feed_until_due, parse_question


def _into(session: Session) -> Callable[[Frame], None]:
    return lambda frame: session.feed(frame.image, at=frame.time_s)


def test_question_is_split_from_its_time() -> None:
    assert parse_question("0:12  What is it? ") == TimedQuestion(12.0, "What is it?")
    assert parse_question("end What was it?") == TimedQuestion(math.inf, "What was it?")
    assert parse_question("door@1:02 Who comes?") == TimedQuestion(62.0, "Who comes?", "door")


def test_question_without_time() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_question("What is it?")
    assert str(caught.value) == (
        '--ask \'What is it?\' has no time: required "TIME QUESTION" or "STREAM@TIME QUESTION", '
        "TIME as M:SS, H:MM:SS, seconds or end, found 'What'. "
        'Such as: --ask "0:12 What is happening?"'
    )


def test_time_without_question() -> None:
    with pytest.raises(QuestionError) as caught:
        parse_question("0:12 ")
    assert str(caught.value) == "--ask '0:12 ' has no question: required \"TIME QUESTION\""


def test_every_frame_up_to_a_question_is_seen_and_none_after_it(
    random_bundle: Path, video: Path
) -> None:
    questions = [TimedQuestion(math.inf, "c"), TimedQuestion(3.2, "b"), TimedQuestion(0.0, "a")]
    runtime = Runtime.load(random_bundle, threads=1)
    with open_source(video) as source, runtime.session(budget_tokens=256) as session:
        seen = [
            (due.question.text, due.late, session.memory().newest_s)
            for due in feed_until_due(_into(session), source, questions)
        ]
    assert seen == [("a", False, 0.0), ("b", False, 3.0), ("c", False, 19.5)]


def test_nothing_is_fed_after_the_last_question(random_bundle: Path, video: Path) -> None:
    runtime = Runtime.load(random_bundle, threads=1)
    with open_source(video) as source, runtime.session(budget_tokens=256) as session:
        for _ in feed_until_due(_into(session), source, [TimedQuestion(1.0, "a")]):
            pass
        assert session.memory().frames_seen == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.96, "1:00"), (12.5, "0:12.5"), (3723, "1:02:03"), (math.inf, "end")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"), [(12_288, "12,288 B"), (3 << 19, "1.5 MiB"), (5 << 29, "2.5 GiB")]
)
def test_size(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


def test_controls_are_taken_out() -> None:
    assert without_controls("a\x1b[31mb\tc\nd\x07\x9bé") == "a[31mb\tc\ndé"
