"""The streaming loop: frames become rows, chunks become compacted memory.

Rows are encoded in slices as they come (causal, so slices do not change the result), which bounds
the attention workspace of Hq * T * S elements. A chunk closes when its last frame is in: the
policy then scores, with probes that ride behind the chunk's last slice, and compacts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import pairwise

import numpy as np

from hermes_edge.engines import EmbeddingTable, View
from hermes_edge.engines.views import Rows, row_slice
from hermes_edge.memory.base import (
    PREFIX_FRAME,
    Float32Array,
    Float64Array,
    Int64Array,
    Policy,
)
from hermes_edge.runtime.compaction import Compactor
from hermes_edge.runtime.decoding import DecoderRunner, OwnTurn
from hermes_edge.runtime.scoring import ProbeTokens, Scorer
from hermes_edge.runtime.shapes import ChunkShape, LargestCalls
from hermes_edge.runtime.store import KVStore


@dataclass(slots=True)
class StageTimes:
    """Milliseconds and counts since the session began."""

    vision_ms: float = 0.0
    encode_ms: float = 0.0
    score_ms: float = 0.0
    compact_ms: float = 0.0
    frames: int = 0
    chunks: int = 0
    compactions: int = 0

    def since(self, before: StageTimes) -> StageTimes:
        """What has come after an earlier moment."""
        return StageTimes(*map(operator.sub, astuple(self), astuple(before)))


class ChunkEncoder:
    """Appends frames' rows to a memory and keeps it within its budget.

    Attributes:
        times: what it has done, and how long that took.
        newest_s: time of the newest row, whether its chunk is complete or not.
        clock: as given.
    """

    def __init__(
        self,
        store: KVStore,
        policy: Policy,
        runner: DecoderRunner,
        scorer: Scorer,
        compactor: Compactor,
        table: EmbeddingTable,
        shape: ChunkShape,
        probes: Callable[[], ProbeTokens],
        turn: OwnTurn,
        go_on: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """``turn`` is taken for every pass, where scratch rows are free.

        ``go_on`` is asked before a compaction; it, too, raises where there shall be none.
        ``clock``: seconds of the stream's own work; stands still while others have the engines.
        """
        self._store, self._policy = store, policy
        self._runner, self._scorer, self._compactor = runner, scorer, compactor
        self._table, self._shape, self._probes = table, shape, probes
        self._turn, self._go_on = turn, go_on
        self.clock = clock
        self._frames_in_chunk = 0
        self.times = StageTimes()
        self.newest_s = 0.0

    @property
    def open_chunk_frames(self) -> int:
        """Frames encoded since the last chunk closed."""
        return self._frames_in_chunk

    @property
    def frames_left(self) -> int:
        """Frames until the chunk closes."""
        return self._shape.chunk_frames - self._frames_in_chunk

    def resume(self, frames_in_chunk: int, times: StageTimes, newest_s: float) -> None:
        """Go on where a saved stream was."""
        self._frames_in_chunk, self.times, self.newest_s = frames_in_chunk, times, newest_s

    def warm_up(self, largest: LargestCalls) -> None:
        """The largest calls once: what does not fit fails now, and nothing grows later."""
        # The backend's arena has settled only when every engine has run on what the others left.
        for _ in range(2):
            self._runner.warm_up(self._store, largest.new_rows, largest.query_rows)
            if largest.probe_rows:
                self._scorer.warm_up(self._store, largest.probe_rows)
            self._compactor.warm_up(self._store)

    def largest_calls(self) -> LargestCalls:
        """What this session may ask of the engines."""
        shape, store = self._shape, self._store
        scores = any(self._policy.probe_kind(layer) for layer in range(len(store.rows)))
        one, both = (shape.one_probe_rows, shape.both_probe_rows) if scores else (0, 0)
        # Both probes ride behind a chunk; where they do not fit, each makes a pass of its own.
        chunk_rows = shape.chunk_frames * shape.tokens_per_frame
        new_rows = max(min(shape.slice_rows, chunk_rows + both), one)
        return LargestCalls(new_rows, one, min(both, new_rows), store.spec.capacity_rows)

    def encode_prefix(self, token_ids: Sequence[int]) -> None:
        """The text that stands before everything and is never evicted."""
        for embeds in self._slices(self._table.lookup(token_ids)):
            frames = np.full(len(embeds), PREFIX_FRAME, dtype=np.int64)
            self._pass(embeds, frames, np.zeros(len(embeds)), None)

    def append(self, embeds: Rows, times_s: Sequence[float]) -> None:
        """Encode whole frames that fit into the open chunk; the last one closes it.

        Args:
            embeds: [F*N, E] on host or device, F at most :attr:`frames_left`.
            times_s: F timestamps.

        Raises:
            BudgetError, GivenUp, EngineError: a memory without eviction is full, the session
                encodes no more, or a call has failed: the memory stays as it was.
        """
        count, tokens = len(times_s), self._shape.tokens_per_frame
        self._make_room()
        closes = count == self.frames_left
        scored = closes and self._policy.needs_scores(self._store.rows, len(embeds))
        probes = self._probes() if scored and self._policy.scoring == "forward" else None
        frames = np.repeat(np.arange(self.times.frames, self.times.frames + count), tokens)
        times = np.repeat(np.asarray(times_s, dtype=np.float64), tokens)
        queries, done = None, 0
        riding = probes if probes and len(probes) < self._shape.slice_rows else None
        with self._whole_or_not_at_all():
            began = self.clock()
            for rows in self._slices(embeds, behind=len(riding or ())):
                span = slice(done, done + len(rows))
                done += len(rows)
                behind = riding if done == len(embeds) else None
                with self._turn():
                    queries = self._pass(rows, frames[span], times[span], behind)
            self.times.encode_ms += self._ms_since(began)
            self.times.frames += count
            self._frames_in_chunk += count
            attention = self._attention(probes, queries) if scored else None
            if closes:
                self._go_on()
        if closes:
            self._compact(attention)

    def close(self) -> None:
        """Close a chunk that is not full; nothing happens where none is open."""
        if self._frames_in_chunk:
            scored = self._policy.needs_scores(self._store.rows, 0)
            probes = self._probes() if scored and self._policy.scoring == "forward" else None
            self._compact(self._attention(probes, None) if scored else None)

    @contextmanager
    def _whole_or_not_at_all(self) -> Iterator[None]:
        """Rows that were appended are scratch again where an error comes before compaction."""
        rows, newest_s = list(self._store.rows), self.newest_s
        frames, in_chunk = self.times.frames, self._frames_in_chunk
        try:
            yield
        except BaseException:
            self._store.rows, self.newest_s = rows, newest_s
            self.times.frames, self._frames_in_chunk = frames, in_chunk
            raise

    def _make_room(self) -> None:
        """Re-index before the chunk would cross the position limit.

        Stored rows and rows still to come add up to the same at every slice of a chunk, so the
        decision falls where the chunk begins, whatever the slices are.
        """
        incoming = self.frames_left * self._shape.tokens_per_frame
        plan = self._policy.make_room(self._store.rows, incoming)
        if plan is not None:
            self._compactor.carry_out(self._store, plan)

    def _slices(self, embeds: Rows, behind: int = 0) -> list[Rows]:
        """Cut so that ``behind`` more rows fit into the last slice's pass."""
        size = self._shape.slice_rows
        cut = max(len(embeds) - (size - behind), 0)
        edges = [*range(0, cut, size), cut, len(embeds)]
        return [row_slice(embeds, start, stop) for start, stop in pairwise(edges) if start < stop]

    def _pass(
        self, embeds: Rows, frames: Int64Array, times: Float64Array, probes: ProbeTokens | None
    ) -> View | None:
        """Encode and commit rows; with probes behind them, return the probes' queries."""
        count = len(embeds)
        if probes is None:
            self._runner.run(self._store, (embeds,))
            self._commit(frames, times)
            return None
        ids = (*probes.working, *probes.long_term)
        offsets = np.concatenate([np.arange(count), count + np.asarray(probes.offsets())])
        _, queries = self._runner.run(
            self._store,
            (embeds, self._table.lookup(ids)),
            segments=np.concatenate(
                [np.zeros(count, np.int64), np.asarray(probes.segments(), dtype=np.int64)]
            ),
            positions=self._store.positions(1) + offsets,
            probe_rows=len(ids),
        )
        self._commit(frames, times)
        return queries

    def _commit(self, frames: Int64Array, times: Float64Array) -> None:
        self._store.commit(frames, times)
        if len(times):
            self.newest_s = float(times[-1])

    def _compact(self, attention: list[Float32Array | None] | None) -> None:
        """Close the chunk; what has begun here is carried out in all layers."""
        began = self.clock()
        plan = self._policy.plan(self._store.rows, attention or [None] * len(self._store.rows))
        if plan is not None:
            self._compactor.carry_out(self._store, plan)
            self.times.compactions += 1
        self.times.compact_ms += self._ms_since(began)
        self.times.chunks += 1
        self._frames_in_chunk = 0

    def _attention(
        self, probes: ProbeTokens | None, queries: View | None
    ) -> list[Float32Array | None]:
        began = self.clock()
        attention = self._scores(probes, queries)
        self.times.score_ms += self._ms_since(began)
        return attention

    def _scores(
        self, probes: ProbeTokens | None, queries: View | None
    ) -> list[Float32Array | None]:
        if probes is None:
            return self._scorer.from_embeddings(
                self._store, self._policy, self._probes(), self._table
            )
        if queries is not None:
            return self._scorer.from_queries(self._store, self._policy, probes, queries)
        # No room behind the chunk's last slice: the probes make passes of their own.
        nothing = self._table.lookup(())
        empty = np.empty(0, dtype=np.int64)
        attention: list[Float32Array | None] = [None] * len(self._store.rows)
        for part in (probes,) if len(probes) <= self._shape.slice_rows else probes.apart():
            with self._turn():
                queries = self._pass(nothing, empty, np.empty(0), part)
            assert queries is not None
            scores = self._scorer.from_queries(self._store, self._policy, part, queries)
            attention = [b if a is None else a for a, b in zip(attention, scores, strict=True)]
        return attention

    def _ms_since(self, began: float) -> float:
        return (self.clock() - began) * 1e3
