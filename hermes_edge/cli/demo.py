"""``hermes-edge demo``: the whole runtime on a small bundle and a small video, both in the box."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import hermes_edge
from hermes_edge.cli.output import clock, size, stdout, table, warn, without_controls
from hermes_edge.cli.process import resident_bytes
from hermes_edge.cli.questions import TimedQuestion, feed_until_due
from hermes_edge.cli.transcript import RANDOM_WEIGHTS

DEMO_BUNDLE = Path(hermes_edge.__file__).parent / "assets" / "demo"

_VIDEO_S = 120
_FPS = 1.0
_BUDGET_TOKENS = 256
_CHUNK_FRAMES = 4
_ANSWER_TOKENS = 10
_QUESTIONS = (
    TimedQuestion(30.0, "What is happening now?"),
    TimedQuestion(75.0, "Which shapes have appeared so far?"),
    TimedQuestion(119.0, "What changed since the beginning?"),
)


def demo() -> None:
    """Stream a synthetic video through the bundled model and show that the memory stays flat."""
    from hermes_edge.runtime import Runtime, SamplingParams, open_source
    from hermes_edge.runtime.synthetic import write_synthetic_video

    runtime = Runtime.load(DEMO_BUNDLE)
    tokens_per_frame = runtime.manifest.tokens_per_frame
    rows, resident = [], []
    with TemporaryDirectory() as folder:
        video = Path(folder) / "demo.avi"
        write_synthetic_video(video, _VIDEO_S, _FPS)
        with (
            open_source(video) as source,
            runtime.session(budget_tokens=_BUDGET_TOKENS, chunk_frames=_CHUNK_FRAMES) as session,
        ):
            for due in feed_until_due(session, source, _QUESTIONS):
                answer = session.ask(
                    due.question.text, SamplingParams(max_new_tokens=_ANSWER_TOKENS)
                )
                memory = session.memory()
                slab_bytes = memory.slab_bytes + memory.spare_bytes
                resident.append(resident_bytes())
                rows.append(
                    (
                        clock(due.question.at_s),
                        due.question.text,
                        " ".join(without_controls(answer.text).split()),
                        f"{answer.ttft_ms:.1f} ms",
                        f"{memory.frames_seen * tokens_per_frame:,}",
                        f"{memory.rows}",
                        size(slab_bytes),
                        size(resident[-1]),
                    )
                )
    table(
        f"{runtime.manifest.model_id}, budget {_BUDGET_TOKENS} tokens a layer",
        ("at", "question", "answer", "TTFT", "tokens seen", "rows", "slabs", "resident"),
        rows,
    )
    stdout().print(
        f"Slabs of {size(slab_bytes)} were allocated once. "
        f"From the first to the last question, resident memory grew by "
        f"{size(max(resident[-1] - resident[0], 0))}."
    )
    if runtime.manifest.random_weights:
        warn(RANDOM_WEIGHTS)
