"""One stream: feed it frames, ask it questions, look at what it remembers."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from hermes_edge.engines.views import Array
from hermes_edge.errors import QuestionError
from hermes_edge.memory import History
from hermes_edge.memory.base import LayerRows
from hermes_edge.runtime.answers import Answer, AnswerRun, AnswerStream, question_ids
from hermes_edge.runtime.chunks import StageTimes
from hermes_edge.runtime.feeding import Feeder
from hermes_edge.runtime.parts import SessionParts
from hermes_edge.runtime.report import MemoryReport, report_memory
from hermes_edge.runtime.sampling import SamplingParams
from hermes_edge.runtime.saving import take_moment
from hermes_edge.snapshots import Saved
from hermes_edge.snapshots.file import write_snapshot

GREEDY = SamplingParams()


class Session:
    """The memory of one stream. Safe to feed from one thread and ask from another.

    A question goes before frames, of this session and of others: it waits for the engine call in
    flight. Layers that a compaction has not come to yet show it all their rows.

    Made by :meth:`Runtime.session` or :meth:`Runtime.restore`; its slabs are freed with it.
    """

    def __init__(self, parts: SessionParts, newest_s: float = 0.0) -> None:
        self._parts = parts
        self._use = parts.use
        self._feeder = Feeder(parts, newest_s)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feed(
        self, frame: npt.NDArray[np.uint8], at: float, captured_s: float | None = None
    ) -> None:
        """Take one frame; encodes and compacts when enough have come.

        Args:
            frame: uint8 RGB [height, width, 3] of any size.
            at: seconds since the stream began, never smaller than before.
            captured_s: ``time.monotonic()`` of its capture, by default now: of several sessions
                that wait for the engines, the one with the oldest frame goes first.

        Raises:
            SourceError: the frame is not an image, or time runs backwards.
            BundleError: the bundle has no vision graph.
            BudgetError: a memory without eviction is full.
            QuestionError: behind :meth:`stop_encoding`, where no more frames may wait.
        """
        with self._use:
            self._feeder.add(frame, at, captured_s)

    def feed_tokens(self, visual_tokens: Array, at: float | Sequence[float]) -> None:
        """Take frames that the caller has encoded.

        Args:
            visual_tokens: [F*N, E] of F whole frames, floating point.
            at: seconds of each frame, or of all of them.

        Raises:
            SourceError: wrong shape, values that are not finite, or time runs backwards.
            BudgetError: a memory without eviction is full.
            QuestionError: behind :meth:`stop_encoding`.
        """
        with self._use:
            self._feeder.add_tokens(visual_tokens, at)

    @property
    def chunk_frames(self) -> int:
        """Frames between two compactions."""
        return self._parts.shape.chunk_frames

    @property
    def waiting_since_s(self) -> float | None:
        """``time.monotonic()`` at the capture of the oldest frame that is not encoded; or None."""
        since_s = self._parts.claim.oldest_s
        return None if math.isinf(since_s) else since_s

    @property
    def progress(self) -> tuple[object, ...]:
        """Equal as long as nothing has come that a snapshot would hold; waits for nothing."""
        times = self._parts.encoder.times
        return (times.frames, times.chunks, self._feeder.waiting, self._parts.history.last)

    def catch_up(self) -> None:
        """Encode waiting frames now, though more would have fitted into the pass."""
        with self._use:
            self._feeder.encode_waiting()

    def stop_encoding(self) -> None:
        """Begin no further engine call for frames, from whatever thread; returns at once.

        The call in flight is finished, and a compaction that has begun. Frames that were to be
        encoded with it wait again, and are a part of what :meth:`save` writes.
        """
        self._parts.claim.gives_up = True

    def flush(self) -> None:
        """Encode waiting frames and close the open chunk, so that the budget holds now."""
        with self._use:
            self._feeder.encode_waiting()
            self._parts.encoder.close()

    @overload
    def ask(
        self,
        question: str | Sequence[int],
        params: SamplingParams = ...,
        *,
        stream: Literal[False] = False,
    ) -> Answer: ...

    @overload
    def ask(
        self,
        question: str | Sequence[int],
        params: SamplingParams = ...,
        *,
        stream: Literal[True],
    ) -> AnswerStream: ...

    def ask(
        self,
        question: str | Sequence[int],
        params: SamplingParams = GREEDY,
        *,
        stream: bool = False,
    ) -> Answer | AnswerStream:
        """Answer from the memory; the memory is bit-identical afterwards.

        The question and its answer condition the probes of the chunks to come.

        Args:
            question: text, or token ids of everything behind the video.
            params: how to generate.
            stream: return an iterator over pieces of text instead; the session is busy until it
                is exhausted or closed.

        Raises:
            QuestionError: no frame has come yet, or the question is too long, empty or not text.
            SettingsError: ``params`` are none.
        """
        answers = AnswerStream(self._answer(question, params))
        if stream:
            return answers
        for _ in answers:
            pass
        return answers.answer

    def memory(self) -> MemoryReport:
        """What is remembered now, by layer and band."""
        with self._use.urgent():
            return report_memory(self._parts, self._feeder.newest_s)

    def rows(self) -> tuple[LayerRows, ...]:
        """Position, frame, time and weight of every committed row, layer by layer."""
        with self._use.urgent():
            return tuple(self._parts.store.rows)

    def timings(self) -> StageTimes:
        """Milliseconds per stage since the session began."""
        return replace(self._parts.encoder.times)

    def save(self, path: str | Path, *, stream: str = "stream") -> Saved:
        """Write the memory to a file, from which :meth:`Runtime.restore` goes on exactly.

        The stream waits for one short pass of the decoder; the rows are copied out while it goes
        on. What is at ``path`` is replaced whole, or stays as it was.

        Args:
            path: the file to be; its folder is there.
            stream: the name to be found under in a folder of several streams.

        Raises:
            StorageError: the file cannot be written.
            SnapshotError: the memory holds numbers that are not finite.
            SettingsError: the name cannot be a part of a file's, or the path is none.
            QuestionError: this thread holds a streamed answer, or the session is closed.
        """
        began = time.perf_counter()
        with ExitStack() as writing:
            with self._use, self._parts.turn():
                held = time.perf_counter()
                moment = take_moment(self._parts, self._feeder.newest_s, stream)
                frozen = writing.enter_context(self._parts.store.freeze())
                pause_ms = (time.perf_counter() - held) * 1e3
            nbytes = write_snapshot(path, moment.record, moment.tensors(frozen))
        return Saved(Path(path), nbytes, pause_ms, (time.perf_counter() - began) * 1e3)

    def close(self) -> None:
        """Refuse further calls. Closing twice is fine."""
        self._use.close()
        self._parts.release()

    def _answer(
        self, question: str | Sequence[int], params: SamplingParams
    ) -> Generator[str, None, Answer]:
        asked = time.perf_counter()
        with self._parts.turns.question(self._parts.claim), self._use.urgent():
            waited_ms = (time.perf_counter() - asked) * 1e3
            run, ids, catch_up_ms = self._begin_answer(question)
            text = ""
            for piece in run.pieces(ids, params):
                text += piece
                yield piece
            if isinstance(question, str):
                self._parts.history.last = History(question, text)
            return Answer(
                text=text,
                token_ids=tuple(run.token_ids),
                finish_reason=run.finish_reason,
                video_time_s=self._parts.encoder.newest_s,
                question_rows=len(ids),
                memory_rows=max(map(len, self._parts.store.rows)),
                waited_ms=waited_ms,
                catch_up_ms=catch_up_ms,
                ttft_ms=run.ttft_ms,
                per_token_ms=run.per_token_ms,
            )

    def _begin_answer(self, question: str | Sequence[int]) -> tuple[AnswerRun, list[int], float]:
        parts = self._parts
        ids = question_ids(question, parts.codec)
        if not parts.store.has_frames and not self._feeder.waiting:
            raise QuestionError(
                "nothing has been seen yet", fix="Feed at least one frame before asking"
            )
        began = time.perf_counter()
        self._feeder.encode_waiting()
        catch_up_ms = (time.perf_counter() - began) * 1e3
        run = AnswerRun(
            parts.store,
            parts.runner,
            parts.table,
            parts.codec,
            parts.eos_token_ids,
            parts.shape.slice_rows,
        )
        return run, ids, catch_up_ms
