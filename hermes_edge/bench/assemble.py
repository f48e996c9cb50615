"""From raw samples to figures: medians, floors beside them, shares."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hermes_edge.bench.figures import (
    ChunkFigures,
    QuestionFigures,
    RateFigures,
    SessionFigures,
    Timed,
    UpkeepFigures,
    VisionFigures,
    spread,
)
from hermes_edge.bench.floors import decoder_floor, vision_floor
from hermes_edge.bench.measure import ChunkSample, QuestionSamples, Subject
from hermes_edge.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Assembler:
    """Knows the model and the machine that the samples are of."""

    manifest: Manifest
    rates: RateFigures

    def vision(self, times_ms: Sequence[float]) -> VisionFigures:
        """Frames of the bundle's own tower."""
        assert self.manifest.vision is not None
        floor = vision_floor(self.manifest.vision, self.manifest.precision, self.rates)
        return VisionFigures(Timed(spread(times_ms), floor))

    def session(self, subject: Subject, question_tokens: int) -> SessionFigures:
        """One session with its question and, where they were measured, its chunks."""
        memory = subject.session.memory()
        return SessionFigures(
            frames=subject.fill_frames,
            fill_s=subject.fill_s,
            capacity_rows=memory.capacity_rows,
            slab_bytes=memory.slab_bytes,
            spare_bytes=memory.spare_bytes,
            question=self._question(subject.question, question_tokens),
            chunk=self._chunk(subject.chunks) if subject.chunks else None,
        )

    def _question(self, samples: QuestionSamples, question_tokens: int) -> QuestionFigures:
        rows = samples.memory_rows
        return QuestionFigures(
            memory_rows=rows,
            ttft=self._decoder(samples.ttft_ms, question_tokens, rows),
            per_token=self._decoder(samples.per_token_ms, 1, rows + question_tokens),
        )

    def _chunk(self, samples: Sequence[ChunkSample]) -> ChunkFigures:
        rows, memory_rows = samples[0].rows, samples[0].memory_rows
        encode = self._decoder([sample.encode_ms for sample in samples], rows, memory_rows)
        return ChunkFigures(
            rows=rows,
            memory_rows=memory_rows,
            encode=encode,
            rows_per_s=rows / encode.ms.median * 1e3,
            score_ms=spread([sample.score_ms for sample in samples]),
            compact_ms=spread([sample.compact_ms for sample in samples]),
        )

    def _decoder(self, times_ms: Sequence[float], new_tokens: int, rows: int) -> Timed:
        manifest = self.manifest
        floor = decoder_floor(
            manifest.decoder,
            manifest.precision,
            self.rates,
            new_tokens,
            rows,
            manifest.quantization,
        )
        return Timed(spread(times_ms), floor)


def upkeep(scored: Sequence[ChunkSample], plain: Sequence[ChunkSample]) -> UpkeepFigures:
    """Cost of scoring and compaction; samples of equal index were taken next to each other."""
    counted = [sample.score_ms + sample.compact_ms for sample in scored]
    difference = [
        ours.whole_ms - theirs.encode_ms for ours, theirs in zip(scored, plain, strict=True)
    ]
    encode_ms = statistics.median(sample.encode_ms for sample in plain)
    return UpkeepFigures(
        counted_ms=spread(counted),
        counted_share=statistics.median(counted) / encode_ms,
        difference_ms=spread(difference),
        difference_share=statistics.median(difference) / encode_ms,
    )
