"""What a benchmark reports: plain records that become one JSON document."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FloorKind = Literal["flops", "reads"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of repeated measurements, warm-up excluded."""

    median: float
    minimum: float
    maximum: float
    repeats: int


def spread(samples: Sequence[float]) -> Spread:
    """The spread of at least one sample."""
    return Spread(statistics.median(samples), min(samples), max(samples), len(samples))


@dataclass(frozen=True, slots=True)
class Floor:
    """The least time that this machine could need, and what sets it."""

    ms: float
    kind: FloorKind


@dataclass(frozen=True, slots=True)
class Timed:
    """A measured stage beside its floor."""

    ms: Spread
    floor: Floor


@dataclass(frozen=True, slots=True)
class VisionFigures:
    """One frame at a time, resizing included."""

    per_frame: Timed


@dataclass(frozen=True, slots=True)
class QuestionFigures:
    """One question on one memory.

    Attributes:
        memory_rows: rows of the largest layer that it was asked on, prefix included.
        ttft: from the question's token ids to its first answer token.
        per_token: each further answer token.
    """

    memory_rows: int
    ttft: Timed
    per_token: Timed


@dataclass(frozen=True, slots=True)
class ChunkFigures:
    """One chunk in the steady state.

    Attributes:
        rows: visual rows that the chunk adds.
        memory_rows: rows of the largest layer before it, prefix included.
        encode: the decoder's passes, with the probes where they ride on the last of them.
        rows_per_s: ``rows`` over the median of ``encode``.
        score_ms, compact_ms: what follows: the policy's scores, its plan and the compaction.
    """

    rows: int
    memory_rows: int
    encode: Timed
    rows_per_s: float
    score_ms: Spread
    compact_ms: Spread


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """One session, filled with ``frames`` frames of the stream and then measured."""

    frames: int
    fill_s: float
    capacity_rows: int
    slab_bytes: int
    spare_bytes: int
    question: QuestionFigures
    chunk: ChunkFigures | None


@dataclass(frozen=True, slots=True)
class UpkeepFigures:
    """What scoring and compaction cost beside encoding.

    ``counted`` is the time of the scoring and compaction stages. Probes that ride on a chunk's last
    pass hide in its encoding, so ``difference`` compares the whole chunk with the same chunk of a
    session without probes: encode, score and compact of the one, less encode of the other, chunk
    by chunk in turns. Shares are of the encoding without probes.
    """

    counted_ms: Spread
    counted_share: float
    difference_ms: Spread
    difference_share: float


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Bytes of this process up to the end of the first session's first questions.

    Attributes:
        graph_bytes: ONNX graphs in use and their weights, as files.
        embedding_bytes: the embedding table's file; it is mapped, and only rows in use are read.
        slab_bytes, spare_bytes: of the session.
        resident_loaded_bytes: resident once the engines were loaded.
        resident_filled_bytes: resident with the session filled.
        peak_resident_bytes: the most that was ever resident.
        bound_bytes: graphs, slabs and spare, and an allowance for everything else.
        over_bound_bytes: the peak less the bound; negative where the bound holds.
    """

    graph_bytes: int
    embedding_bytes: int
    slab_bytes: int
    spare_bytes: int
    resident_loaded_bytes: int
    resident_filled_bytes: int
    peak_resident_bytes: int
    bound_bytes: int
    over_bound_bytes: int


@dataclass(frozen=True, slots=True)
class RateFigures:
    """What the device reaches, measured in the same run; floors are counted against it.

    ``sgemm_gflop_per_s`` is of fp32 on the CPU, and of the bundle's precision on a GPU.
    """

    sgemm_gflop_per_s: float
    read_gbyte_per_s: float


@dataclass(frozen=True, slots=True)
class AgainstFigures:
    """The same rows, question and number of threads, here and in transformers, in turns.

    Attributes:
        memory_rows: cached rows on both sides.
        ttft_ratio, per_token_ratio: medians there over medians here; above one is faster here.
        first_logits_difference: largest absolute difference of the first token's logits.
        first_logits_largest: largest absolute logit, for scale.
        equal_greedy_tokens: answer tokens that agree, from the first on.
    """

    model: str
    memory_rows: int
    ttft_ms: Spread
    their_ttft_ms: Spread
    ttft_ratio: float
    per_token_ms: Spread
    their_per_token_ms: Spread
    per_token_ratio: float
    first_logits_difference: float
    first_logits_largest: float
    equal_greedy_tokens: int


@dataclass(frozen=True, slots=True)
class ReplayFigures:
    """How TensorRT took the single rows of a static decoder, up to the end of the benchmark.

    Attributes:
        plain_runs: kernel by kernel.
        captures: recorded as a CUDA graph.
        launches: as a CUDA graph.
    """

    plain_runs: int
    captures: int
    launches: int


@dataclass(frozen=True, slots=True)
class BundleFigures:
    """Which bundle was measured."""

    path: str
    model_id: str
    family: str
    precision: str
    quantization: str | None
    static_decode: bool
    random_weights: bool
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class MachineFigures:
    """Where it was measured, with what."""

    processor: str
    usable_cores: int
    memory_bytes: int
    system: str
    versions: dict[str, str]
    git_commit: str | None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """The whole document."""

    schema_version: int
    machine: MachineFigures
    bundle: BundleFigures
    settings: dict[str, int | str]
    rates: RateFigures
    memory: MemoryFigures
    vision: VisionFigures | None
    sessions: dict[str, SessionFigures]
    upkeep: UpkeepFigures
    replay: ReplayFigures | None
    against_transformers: AgainstFigures | None
