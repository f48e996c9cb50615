"""What ``run`` writes while streams go on: for people, or one JSON document per line."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from hermes_edge.cli.output import clock, print_json, print_piece, size, stdout, warn
from hermes_edge.cli.output import without_controls as plain
from hermes_edge.process import resident_bytes

if TYPE_CHECKING:
    from hermes_edge.manifest import Manifest
    from hermes_edge.runtime import Answer, MemoryReport
    from hermes_edge.service.questions import DueQuestion
    from hermes_edge.service.stream import Stream

Warn = Callable[[str], object]

RANDOM_WEIGHTS = "the weights of this bundle are random, so the answers are noise"


class Transcript(Protocol):
    """Told of everything in order: a question, pieces, its answer, and so on, then the summary."""

    def question(self, stream: Stream, due: DueQuestion) -> None:
        """A question is about to be asked."""

    def piece(self, stream: Stream, text: str) -> None:
        """Text of the answer, as it comes."""

    def answer(self, stream: Stream, due: DueQuestion, answer: Answer) -> None:
        """The answer is complete."""

    def summary(self, manifest: Manifest, stream: Stream) -> None:
        """The last question is answered, or the source is over."""


class TextTranscript:
    """Answers as they stream, each with its times."""

    def __init__(self, warn: Warn = warn) -> None:
        self._warn = warn

    def question(self, stream: Stream, due: DueQuestion) -> None:
        """Time and text; says so where the video is shorter than the question's time."""
        stdout().print(_asked(stream, due, self._warn))

    def piece(self, stream: Stream, text: str) -> None:
        """The piece itself."""
        print_piece(text)

    def answer(self, stream: Stream, due: DueQuestion, answer: Answer) -> None:
        """A line of figures."""
        print_piece("\n")
        stdout().print(_figures(answer), style="dim")

    def summary(self, manifest: Manifest, stream: Stream) -> None:
        """Frames and memory, then what has to be known about them."""
        stdout().print(
            f"{_told(stream.session.memory())}, resident {size(resident_bytes())}",
        )
        _warn_of(stream, self._warn)
        if manifest.random_weights:
            self._warn(RANDOM_WEIGHTS)


class SharedTranscript:
    """Answers of several streams, each printed whole under its stream's name."""

    def __init__(self, warn: Warn = warn) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._warned = False

    def question(self, stream: Stream, due: DueQuestion) -> None:
        """Nothing: the answer repeats its question."""

    def piece(self, stream: Stream, text: str) -> None:
        """Nothing: pieces of several answers would be mixed."""

    def answer(self, stream: Stream, due: DueQuestion, answer: Answer) -> None:
        """Question, answer and figures."""
        with self._lock:
            stdout().print(f"{stream.name} {_asked(stream, due, self._warn)}")
            stdout().print(plain(answer.text))
            stdout().print(_figures(answer), style="dim")

    def summary(self, manifest: Manifest, stream: Stream) -> None:
        """Frames and memory of one stream."""
        stdout().print(f"{stream.name}: {_told(stream.session.memory())}")
        _warn_of(stream, self._warn)
        if manifest.random_weights and not self._warned:
            self._warned = True
            self._warn(RANDOM_WEIGHTS)


class JsonTranscript:
    """Documents of type ``answer``, then one of type ``summary`` a stream; nothing else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def question(self, stream: Stream, due: DueQuestion) -> None:
        """Nothing: the answer repeats its question."""

    def piece(self, stream: Stream, text: str) -> None:
        """Nothing: documents are whole."""

    def answer(self, stream: Stream, due: DueQuestion, answer: Answer) -> None:
        """``asked_at_s`` is null for a question at the end."""
        at_s = due.question.at_s
        with self._lock:
            print_json(
                {
                    "type": "answer",
                    "stream": stream.name,
                    "question": due.question.text,
                    "asked_at_s": None if math.isinf(at_s) else at_s,
                    "late": due.late,
                    **asdict(answer),
                }
            )

    def summary(self, manifest: Manifest, stream: Stream) -> None:
        """Memory, stage times, and ``ended_early``: null, or what is missing of the video."""
        memory, status = stream.session.memory(), stream.status()
        print_json(
            {
                "type": "summary",
                "stream": stream.name,
                "model_id": manifest.model_id,
                "random_weights": manifest.random_weights,
                "ended_early": stream.ended_early,
                "unanswered": stream.unanswered,
                "resident_bytes": resident_bytes(),
                "rows": memory.rows,
                "frames": dict(status.frames),
                "memory": asdict(memory),
                "timings": asdict(status.stages),
            }
        )


def _asked(stream: Stream, due: DueQuestion, warn: Warn) -> str:
    question, newest_s = due.question, stream.newest_s
    if due.late:
        warn(
            f"the video ends at {clock(newest_s)}: "
            f"the question for {clock(question.at_s)} is asked there"
        )
    at_s = newest_s if due.late or math.isinf(question.at_s) else question.at_s
    return f"[{clock(at_s)}] {question.text}"


def _figures(answer: Answer) -> str:
    return (
        f"    TTFT {answer.ttft_ms:.1f} ms, {answer.per_token_ms:.1f} ms per further token, "
        f"{answer.memory_rows} rows, seen up to {clock(answer.video_time_s)}"
    )


def _told(memory: MemoryReport) -> str:
    return (
        f"{memory.frames_seen} frames up to {clock(memory.newest_s)}; "
        f"{memory.rows} of {memory.capacity_rows} rows (budget {memory.budget_rows}), "
        f"slabs {size(memory.slab_bytes + memory.spare_bytes)}"
    )


def _warn_of(stream: Stream, warn: Warn) -> None:
    if stream.ended_early is not None:
        warn(stream.ended_early)
    if stream.unanswered:
        warn(f"{stream.name}: {stream.unanswered} questions are not answered")
