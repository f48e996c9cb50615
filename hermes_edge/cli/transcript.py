"""What ``run`` writes while a stream goes on: for people, or one JSON document per line."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from hermes_edge.cli.output import clock, print_json, print_piece, size, stdout, warn
from hermes_edge.process import resident_bytes
from hermes_edge.service.questions import DueQuestion

if TYPE_CHECKING:
    from hermes_edge.manifest import Manifest
    from hermes_edge.runtime import Answer, Session

RANDOM_WEIGHTS = "the weights of this bundle are random, so the answers are noise"


class Transcript(Protocol):
    """Told of everything in order: a question, pieces, its answer, and so on, then the summary."""

    def question(self, due: DueQuestion, session: Session) -> None:
        """A question is about to be asked."""

    def piece(self, text: str) -> None:
        """Text of the answer, as it comes."""

    def answer(self, due: DueQuestion, answer: Answer) -> None:
        """The answer is complete."""

    def summary(self, manifest: Manifest, session: Session, ended_early: str | None) -> None:
        """The last question is answered, or the video is over."""


class TextTranscript:
    """Answers as they stream, each with its times."""

    def question(self, due: DueQuestion, session: Session) -> None:
        """Time and text; says so where the video is shorter than the question's time."""
        question, newest_s = due.question, session.memory().newest_s
        if due.late:
            warn(
                f"the video ends at {clock(newest_s)}: "
                f"the question for {clock(question.at_s)} is asked there"
            )
        at_s = newest_s if due.late or math.isinf(question.at_s) else question.at_s
        stdout().print(f"[{clock(at_s)}] {question.text}")

    def piece(self, text: str) -> None:
        """The piece itself."""
        print_piece(text)

    def answer(self, due: DueQuestion, answer: Answer) -> None:
        """A line of figures."""
        print_piece("\n")
        stdout().print(
            f"    TTFT {answer.ttft_ms:.1f} ms, {answer.per_token_ms:.1f} ms per further token, "
            f"{answer.memory_rows} rows, seen up to {clock(answer.video_time_s)}",
            style="dim",
        )

    def summary(self, manifest: Manifest, session: Session, ended_early: str | None) -> None:
        """Frames and memory, then what has to be known about them."""
        memory = session.memory()
        stdout().print(
            f"{memory.frames_seen} frames up to {clock(memory.newest_s)}; "
            f"{memory.rows} of {memory.capacity_rows} rows (budget {memory.budget_rows}), "
            f"slabs {size(memory.slab_bytes + memory.spare_bytes)}, "
            f"resident {size(resident_bytes())}",
        )
        if ended_early is not None:
            warn(ended_early)
        if manifest.random_weights:
            warn(RANDOM_WEIGHTS)


class JsonTranscript:
    """Documents of type ``answer``, then one of type ``summary``; nothing else."""

    def question(self, due: DueQuestion, session: Session) -> None:
        """Nothing: the answer repeats its question."""

    def piece(self, text: str) -> None:
        """Nothing: documents are whole."""

    def answer(self, due: DueQuestion, answer: Answer) -> None:
        """``asked_at_s`` is null for a question at the end."""
        at_s = due.question.at_s
        print_json(
            {
                "type": "answer",
                "question": due.question.text,
                "asked_at_s": None if math.isinf(at_s) else at_s,
                "late": due.late,
                **asdict(answer),
            }
        )

    def summary(self, manifest: Manifest, session: Session, ended_early: str | None) -> None:
        """Memory, stage times, and ``ended_early``: null, or what is missing of the video."""
        memory = session.memory()
        print_json(
            {
                "type": "summary",
                "model_id": manifest.model_id,
                "random_weights": manifest.random_weights,
                "ended_early": ended_early,
                "resident_bytes": resident_bytes(),
                "rows": memory.rows,
                "memory": asdict(memory),
                "timings": asdict(session.timings()),
            }
        )
