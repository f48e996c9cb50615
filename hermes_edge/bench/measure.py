"""Raw measurements of sessions: milliseconds, warm-up left out.

The processor is synchronous, so a wall clock around a call is its time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hermes_edge.bench.inside import never_ending
from hermes_edge.bench.stream import TokenStream, open_session
from hermes_edge.runtime import Runtime, SamplingParams, Session

_VISION_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often a thing is measured, after ``warmup`` times that do not count."""

    questions: int
    chunks: int
    warmup: int


@dataclass(slots=True)
class QuestionSamples:
    """Times of one question, repeated on one memory of ``memory_rows`` rows."""

    memory_rows: int = 0
    ttft_ms: list[float] = field(default_factory=list)
    per_token_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChunkSample:
    """Stages of one chunk of ``rows`` rows; the memory held ``memory_rows`` before."""

    rows: int
    memory_rows: int
    encode_ms: float
    score_ms: float
    compact_ms: float

    @property
    def whole_ms(self) -> float:
        """The chunk from its first row to the compacted memory."""
        return self.encode_ms + self.score_ms + self.compact_ms


@dataclass(slots=True)
class Subject:
    """A session under measurement, the stream that it sees, and what was measured."""

    session: Session
    stream: TokenStream
    fill_frames: int = 0
    fill_s: float = 0.0
    question: QuestionSamples = field(default_factory=QuestionSamples)
    chunks: list[ChunkSample] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        runtime: Runtime,
        policy: str,
        *,
        budget_tokens: int | None,
        chunk_frames: int,
        reserve_tokens: int,
    ) -> Subject:
        """An empty session at the beginning of the stream."""
        session = open_session(
            runtime,
            policy,
            budget_tokens=budget_tokens,
            chunk_frames=chunk_frames,
            reserve_tokens=reserve_tokens,
        )
        return cls(never_ending(session), TokenStream(runtime))

    def fill(self, frames: int, at_once: int) -> None:
        """Feed ``frames`` frames, ``at_once`` in one call."""
        began = time.perf_counter()
        for start in range(0, frames, at_once):
            self.stream.feed(self.session, min(at_once, frames - start))
        self.fill_s += time.perf_counter() - began
        self.fill_frames += frames

    def ask(self, ids: Sequence[int], answer_tokens: int) -> None:
        """One question more; its answer has ``answer_tokens`` tokens."""
        answer = self.session.ask(ids, SamplingParams(max_new_tokens=answer_tokens))
        self.question.memory_rows = answer.memory_rows
        self.question.ttft_ms.append(answer.ttft_ms)
        self.question.per_token_ms.append(answer.per_token_ms)

    def feed_chunk(self, frames: int) -> None:
        """One chunk more."""
        memory_rows = self.session.memory().rows
        before = self.session.timings()
        self.stream.feed(self.session, frames)
        after = self.session.timings()
        self.chunks.append(
            ChunkSample(
                frames * self.stream.tokens_per_frame,
                memory_rows,
                after.encode_ms - before.encode_ms,
                after.score_ms - before.score_ms,
                after.compact_ms - before.compact_ms,
            )
        )


def measure_question(
    subject: Subject, ids: Sequence[int], answer_tokens: int, repeats: Repeats
) -> None:
    """Ask the same question again and again; warm-up is forgotten."""
    for _ in range(repeats.warmup):
        subject.ask(ids, answer_tokens)
    subject.question = QuestionSamples()
    for _ in range(repeats.questions):
        subject.ask(ids, answer_tokens)


def warm_up_chunks(subject: Subject, chunk_frames: int, repeats: Repeats) -> None:
    """Chunks that do not count: they bring the session into its steady state."""
    for _ in range(repeats.warmup):
        subject.stream.feed(subject.session, chunk_frames)


def measure_chunks(subjects: Sequence[Subject], chunk_frames: int, repeats: Repeats) -> None:
    """Feed chunks to all subjects in turns: a slow spell of the machine then hits all alike."""
    for _ in range(repeats.chunks):
        for subject in subjects:
            subject.feed_chunk(chunk_frames)


def measure_vision(runtime: Runtime, reserve_tokens: int, repeats: Repeats) -> list[float]:
    """Milliseconds of single frames of noise that come at the tower's own size."""
    vision = runtime.manifest.vision
    assert vision is not None
    session = open_session(
        runtime,
        "window",
        budget_tokens=runtime.manifest.tokens_per_frame,
        chunk_frames=1,
        reserve_tokens=reserve_tokens,
    )
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (vision.image_size, vision.image_size, 3), dtype=np.uint8)
    times = []
    for at in range(repeats.warmup + min(repeats.questions, _VISION_FRAMES)):
        before = session.timings().vision_ms
        session.feed(frame, at=float(at))
        times.append(session.timings().vision_ms - before)
    return times[repeats.warmup :]
