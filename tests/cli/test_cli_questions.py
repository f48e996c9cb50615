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


@pytest.mark.parametrize(
    ("text", "at_s", "question", "stream"),
    [
        ("front door@end Who?", math.inf, "Who?", "front door"),
        ("door@yard@0:12 Who?", 12.0, "Who?", "door@yard"),
        ("0:12 Who wrote a@b?", 12.0, "Who wrote a@b?", None),
        ("0:12 Who was at door@0:05 then?", 12.0, "Who was at door@0:05 then?", None),
        ("door@0:12 Was yard@0:05 empty?", 12.0, "Was yard@0:05 empty?", "door"),
        ("a=b@5  Who?", 5.0, "Who?", "a=b"),
    ],
)
def test_names_with_odd_characters(
    text: str, at_s: float, question: str, stream: str | None
) -> None:
    assert parse_question(text) == TimedQuestion(at_s, question, stream)


def test_known_names_go_before_what_reads_as_a_time() -> None:
    names = ("2024 party", "cam@5 left", "cam")
    assert parse_question("2024 party@end Who?", names).stream == "2024 party"
    assert parse_question("cam@5 left@0:12 Who?", names) == TimedQuestion(
        12.0, "Who?", "cam@5 left"
    )
    assert parse_question("cam@5 right@0:12 Who?", names).stream == "cam"
    assert parse_question("0:12 Who is at a@b?", names).stream is None
    with pytest.raises(SettingsError, match=r", found 'soon'\. "):
        parse_question("2024 party@soon Who?", names)


@pytest.mark.parametrize(
    ("text", "shown", "found"),
    [
        ("rtsp://admin:s3cr3t@h/x", "rtsp://***@h/x", "h/x"),
        ("rtsp://admin:s3cr3t@h/x Who is a@b?", "rtsp://***", "rtsp://***"),
        # Cut at its @, or at its space, it would read as a host and a port.
        ("rtsp://admin:1234 5@h/x", "rtsp://***@h/x", "h/x"),
        ("rtsp://admin:s3cr3t%40h Who?", "rtsp://***", "rtsp://***"),
    ],
)
def test_a_password_in_place_of_a_time(text: str, shown: str, found: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_question(text)
    assert str(caught.value).startswith(f"--ask {shown!r} has no time: ")
    assert f", found {found!r}. " in str(caught.value)


def test_a_password_before_a_time_without_question() -> None:
    with pytest.raises(QuestionError, match=r"^--ask 'rtsp://\*\*\*' has no question: "):
        parse_question("rtsp://admin:s3cr3t@h/x@0:12")


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
