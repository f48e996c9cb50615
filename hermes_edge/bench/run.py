"""The course of a benchmark: which sessions are measured, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_edge.bench.assemble import Assembler, upkeep
from hermes_edge.bench.figures import (
    AgainstFigures,
    BenchReport,
    BundleFigures,
    MemoryFigures,
    RateFigures,
)
from hermes_edge.bench.inside import replayed
from hermes_edge.bench.machine import (
    describe_machine,
    measure_rates,
    resident_bytes,
    usable_cores,
)
from hermes_edge.bench.measure import (
    Repeats,
    Subject,
    measure_chunks,
    measure_question,
    measure_vision,
    warm_up_chunks,
)
from hermes_edge.bench.stream import random_ids
from hermes_edge.errors import CheckpointError, SettingsError
from hermes_edge.manifest import EMBEDDINGS_NAME, MANIFEST_NAME, sha256_of
from hermes_edge.runtime import Runtime

if TYPE_CHECKING:
    from hermes_edge.bench.against import Reference

SCHEMA_VERSION = 1
# Interpreter, libraries, tokenizer, staging buffers and the attention workspace.
ALLOWANCE_BYTES = 500 * 10**6
_LEAST_RESERVE_TOKENS = 512
_UNUSED_GRAPH = "embedding_probe"

Announce = Callable[[str], None]
"""Told the name of every stage as it begins."""


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What to measure; 0 where the bundle, the budget or the machine decides.

    Attributes:
        rows: visual rows in the memory when the question comes, rounded up to whole chunks.
        budget: visual rows that a layer may keep; by default ``rows``, or as the runtime does.
        repeats, chunk_repeats: of questions and of chunks, each after ``warmup`` more.
        device, backend: as of ``Runtime.load``; transformers runs on the same device.
        checkpoint: where the bundle was exported from, to measure against transformers.
    """

    bundle: Path
    rows: int = 0
    budget: int = 0
    chunk_frames: int = 0
    question_tokens: int = 32
    answer_tokens: int = 8
    repeats: int = 5
    chunk_repeats: int = 3
    warmup: int = 1
    threads: int = 0
    device: str = "cpu"
    backend: str = "onnxruntime"
    checkpoint: Path | None = None


def run_bench(settings: BenchSettings, announce: Announce) -> BenchReport:
    """Measure a bundle on this machine.

    Raises:
        BundleError: the bundle cannot be used.
        SettingsError: more rows than the budget, or too few answer tokens.
        BudgetError: the budget does not fit the model's positions, or not one chunk.
        CheckpointError: the checkpoint is missing, or not the one that the bundle is of.
        DependencyError: a package that the measurement needs is not installed.
    """
    _check(settings)
    announce("engines")
    threads = settings.threads or usable_cores()
    runtime = Runtime.load(
        settings.bundle, device=settings.device, backend=settings.backend, threads=threads
    )
    return _Bench(settings, runtime, threads, announce).report()


def _check(settings: BenchSettings) -> None:
    if settings.budget and settings.rows > settings.budget:
        raise SettingsError(
            "more rows than the budget keeps",
            required=f"rows of at most {settings.budget}",
            found=settings.rows,
        )
    if settings.answer_tokens < 2:
        raise SettingsError(
            "too few answer tokens to time one",
            required="answer_tokens of at least 2",
            found=settings.answer_tokens,
        )
    if settings.checkpoint is not None and not settings.checkpoint.is_dir():
        raise CheckpointError(f"no checkpoint folder at {settings.checkpoint}")


class _Bench:
    """One run over one runtime."""

    def __init__(
        self, settings: BenchSettings, runtime: Runtime, threads: int, announce: Announce
    ) -> None:
        self._settings, self._runtime = settings, runtime
        self._threads, self._announce = threads, announce
        self._repeats = Repeats(settings.repeats, settings.chunk_repeats, settings.warmup)
        self._chunk_frames = settings.chunk_frames or runtime.manifest.chunk_frames
        self._reserve_tokens = max(
            settings.question_tokens + settings.answer_tokens, _LEAST_RESERVE_TOKENS
        )
        self._ids = random_ids(runtime, settings.question_tokens, seed=1)
        self._resident_loaded_bytes = resident_bytes()[0]

    def report(self) -> BenchReport:
        """Every figure; memory is accounted for before a second session or library comes in."""
        tokens = self._settings.question_tokens
        hermes = self._open("hermes", self._settings.budget or self._settings.rows or None)
        vision_ms = self._vision()
        chunks_to_fill = self._chunks_to_fill(hermes)
        self._fill_and_ask(hermes, chunks_to_fill * self._chunk_frames)
        warm_up_chunks(hermes, self._chunk_frames, self._repeats)
        memory = self._memory(hermes)
        reference = self._reference()
        window = self._open("window", hermes.session.memory().budget_rows)
        self._fill_and_ask(window, hermes.fill_frames)
        warm_up_chunks(window, self._chunk_frames, self._repeats)
        full = self._full(hermes)
        self._announce("chunks of hermes and window, in turns")
        measure_chunks([hermes, window], self._chunk_frames, self._repeats)
        against = self._against(reference, window) if reference is not None else None
        self._announce("rates of the machine")
        assembler = Assembler(self._runtime.manifest, self._rates())
        return BenchReport(
            schema_version=SCHEMA_VERSION,
            machine=describe_machine(),
            bundle=self._bundle(),
            settings=self._resolved_settings(hermes),
            rates=assembler.rates,
            memory=memory,
            vision=assembler.vision(vision_ms) if vision_ms else None,
            sessions={
                "hermes": assembler.session(hermes, tokens),
                "window": assembler.session(window, tokens),
                "full": assembler.session(full, tokens),
            },
            upkeep=upkeep(hermes.chunks, window.chunks),
            replay=replayed(self._runtime),
            against_transformers=against,
        )

    def _open(self, policy: str, budget_tokens: int | None) -> Subject:
        return Subject.open(
            self._runtime,
            policy,
            budget_tokens=budget_tokens,
            chunk_frames=self._chunk_frames,
            reserve_tokens=self._reserve_tokens,
        )

    def _vision(self) -> list[float]:
        if self._runtime.manifest.vision is None:
            return []
        self._announce("vision")
        return measure_vision(self._runtime, self._reserve_tokens, self._repeats)

    def _chunks_to_fill(self, hermes: Subject) -> int:
        rows = self._settings.rows or hermes.session.memory().budget_rows
        return -(-rows // (self._chunk_frames * self._runtime.manifest.tokens_per_frame))

    def _fill_and_ask(self, subject: Subject, frames: int) -> None:
        policy = subject.session.memory().policy
        self._announce(f"{policy}: {frames} frames, then questions")
        subject.fill(frames, self._chunk_frames)
        measure_question(subject, self._ids, self._settings.answer_tokens, self._repeats)

    def _full(self, hermes: Subject) -> Subject:
        """All that the hermes session had seen when it was asked, as far as positions allow."""
        manifest, memory = self._runtime.manifest, hermes.session.memory()
        tokens = manifest.tokens_per_frame
        most = manifest.decoder.max_positions - memory.layers[0].prefix_rows - self._reserve_tokens
        frames = min(hermes.fill_frames, most // tokens - 1)
        full = self._open("full", frames * tokens)
        self._fill_and_ask(full, frames)
        return full

    def _memory(self, hermes: Subject) -> MemoryFigures:
        resident, peak = resident_bytes()
        report = hermes.session.memory()
        manifest = self._runtime.manifest
        sizes = {record.path: record.bytes for record in manifest.files}
        # No session of this run loads the embedding probe; weights are in files behind a graph's.
        loaded = [graph.file for name, graph in manifest.graphs.items() if name != _UNUSED_GRAPH]
        graphs = sum(sizes[path] for path in sizes if path.startswith(tuple(loaded)))
        bound = graphs + report.slab_bytes + report.spare_bytes + ALLOWANCE_BYTES
        return MemoryFigures(
            graph_bytes=graphs,
            embedding_bytes=sizes[EMBEDDINGS_NAME],
            slab_bytes=report.slab_bytes,
            spare_bytes=report.spare_bytes,
            resident_loaded_bytes=self._resident_loaded_bytes,
            resident_filled_bytes=resident,
            peak_resident_bytes=peak,
            bound_bytes=bound,
            over_bound_bytes=peak - bound,
        )

    def _reference(self) -> Reference | None:
        if self._settings.checkpoint is None:
            return None
        self._announce("checkpoint")
        # Only here: torch would count into the resident memory that has just been read.
        from hermes_edge.bench.against import Reference

        return Reference.open(self._settings.checkpoint, self._runtime.bundle)

    def _rates(self) -> RateFigures:
        if self._settings.device == "cpu":
            return measure_rates()
        from hermes_edge.bench.accelerator import measure_gpu_rates

        return measure_gpu_rates(self._settings.device, self._runtime.manifest.precision)

    def _against(self, reference: Reference, window: Subject) -> AgainstFigures:
        """On the window's memory: its layers agree on positions, as transformers' have to."""
        self._announce("transformers and window, in turns")
        model = reference.load(self._threads, self._settings.device)
        return model.compare(window.session, self._ids, self._settings.answer_tokens, self._repeats)

    def _bundle(self) -> BundleFigures:
        manifest, path = self._runtime.manifest, self._runtime.bundle.path
        return BundleFigures(
            path=str(path),
            model_id=manifest.model_id,
            family=manifest.family,
            precision=manifest.precision,
            quantization=str(manifest.quantization) if manifest.quantization else None,
            static_decode=manifest.static_decode,
            random_weights=manifest.random_weights,
            manifest_sha256=sha256_of(path / MANIFEST_NAME),
        )

    def _resolved_settings(self, hermes: Subject) -> dict[str, int | str]:
        settings = self._settings
        return {
            "budget_rows": hermes.session.memory().budget_rows,
            "chunk_frames": self._chunk_frames,
            "question_tokens": settings.question_tokens,
            "answer_tokens": settings.answer_tokens,
            "reserve_tokens": self._reserve_tokens,
            "repeats": settings.repeats,
            "chunk_repeats": settings.chunk_repeats,
            "warmup": settings.warmup,
            "threads": self._threads,
            "device": settings.device,
            "backend": settings.backend,
        }
