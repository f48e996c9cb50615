"""``hermes-edge demo``: a trained model, a video file and questions whose answers are known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_edge.cli.output import clock, size, stdout, table, without_controls
from hermes_edge.process import resident_bytes
from hermes_edge.service.questions import TimedQuestion, feed_until_due
from hermes_edge.shipped import DEMO_FRAMES, DEMO_SEED, DEMO_VIDEO, TINY_BUNDLE

if TYPE_CHECKING:
    from hermes_edge.runtime import Frame
    from hermes_edge.synthetic import Question

_BUDGET_TOKENS = 256
_CHUNK_FRAMES = 4
_RESERVE_TOKENS = 96
_ANSWER_TOKENS = 8
_MOMENTS = (30, 75, 130, 191)
_KINDS = ("now", "recall-colour", "recall-before", "existence", "order")
_THUMBNAILS = 24


def demo_questions() -> list[Question]:
    """One question of each kind at each moment where there is one, with its truth."""
    from hermes_edge.synthetic import make_question, make_stream

    stream = make_stream(DEMO_SEED, DEMO_FRAMES)
    chance = random.Random(DEMO_SEED)
    asked = [make_question(stream, kind, at, chance) for at in _MOMENTS for kind in _KINDS]
    return [question for question in asked if question is not None]


def demo(
    picture: Annotated[
        Path, typer.Option(help="Where to draw what is remembered, as HTML.")
    ] = Path("hermes-edge-demo.html"),
) -> None:
    """Stream the video in the box through the model in the box, and compare answers with truth."""
    from hermes_edge.cli.picture import layer_lines, write_picture
    from hermes_edge.runtime import Runtime, SamplingParams, open_source

    runtime = Runtime.load(TINY_BUNDLE)
    truths = demo_questions()
    timed = [TimedQuestion(float(truth.asked_frame), truth.text) for truth in truths]
    rows: list[Sequence[str]] = []
    memories: dict[str, Sequence[str]] = {}
    right, resident = 0, []
    with (
        open_source(DEMO_VIDEO) as source,
        runtime.session(
            budget_tokens=_BUDGET_TOKENS,
            chunk_frames=_CHUNK_FRAMES,
            reserve_tokens=_RESERVE_TOKENS,
        ) as session,
    ):

        def feed(frame: Frame) -> None:
            session.feed(frame.image, at=frame.time_s)

        for due, truth in zip(feed_until_due(feed, source, timed), truths, strict=True):
            answer = session.ask(due.question.text, SamplingParams(max_new_tokens=_ANSWER_TOKENS))
            memory, at = session.memory(), clock(due.question.at_s)
            text = " ".join(without_controls(answer.text).split())
            right += text == truth.answer
            verdict = truth.answer if text == truth.answer else f"{truth.answer} (wrong)"
            rows.append((at, truth.text, text, verdict, f"{answer.ttft_ms:.1f} ms"))
            resident.append(resident_bytes())
            seen = memory.frames_seen * runtime.manifest.tokens_per_frame
            slabs = size(memory.slab_bytes + memory.spare_bytes)
            memories[at] = (at, f"{seen:,}", f"{memory.rows}", slabs, size(resident[-1]))
        kept, bands = session.rows(), [layer.band for layer in memory.layers]
    name = runtime.manifest.model_id
    table(
        f"{name}, budget {_BUDGET_TOKENS} tokens a layer",
        ("at", "question", "answer", "truth", "TTFT"),
        rows,
    )
    table("Its memory", ("at", "tokens seen", "rows", "slabs", "resident"), memories.values())
    stdout().print(
        f"{right} of {len(rows)} right. Slabs were allocated once; from the first to the last "
        f"question, resident memory grew by {size(max(resident[-1] - resident[0], 0))}."
    )
    lines = layer_lines(kept, bands, memory.frames_seen, runtime.manifest.tokens_per_frame)
    with open_source(DEMO_VIDEO) as source:
        shown = [f.image for i, f in enumerate(source) if i % (DEMO_FRAMES // _THUMBNAILS) == 0]
    title = f"{name}: what {_BUDGET_TOKENS} tokens a layer remember of {memory.frames_seen} frames"
    write_picture(picture, title, lines, shown)
    stdout().print(f"What is remembered, by layer and age: {picture}")
