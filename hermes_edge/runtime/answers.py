"""Questions: a prefill of their own tokens on the compact memory, then one token at a time.

Everything runs in scratch rows and is forgotten at the end, so the memory is bit-identical after.
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hermes_edge.arguments import check_kind, whole_numbers
from hermes_edge.engines import EmbeddingTable
from hermes_edge.engines.views import Array
from hermes_edge.errors import QuestionError
from hermes_edge.runtime.decoding import DecoderRunner
from hermes_edge.runtime.sampling import Sampler, SamplingParams, StopScanner
from hermes_edge.runtime.store import KVStore
from hermes_edge.runtime.text import Detokenizer, TextCodec

FinishReason = Literal["end", "stop", "length"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, and what it cost.

    Attributes:
        text: the answer; empty for a bundle without tokenizer.
        token_ids: the generated ids, without the end token.
        finish_reason: the model ended, a stop string came, or ``max_new_tokens`` was reached.
        video_time_s: time of the newest frame that the answer could see.
        question_rows: rows that the question took.
        memory_rows: rows of the largest layer that it was asked on, prefix included.
        waited_ms: from the question to the moment from which the session was its own.
        catch_up_ms: encoding of frames that were still waiting when the question came.
        ttft_ms: from then on to the first token.
        per_token_ms: mean of the further tokens, 0 where there was none.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    video_time_s: float
    question_rows: int
    memory_rows: int
    waited_ms: float
    catch_up_ms: float
    ttft_ms: float
    per_token_ms: float


class AnswerRun:
    """One question on one memory: iterate over its text pieces, then read the figures."""

    def __init__(
        self,
        store: KVStore,
        runner: DecoderRunner,
        table: EmbeddingTable,
        codec: TextCodec | None,
        eos_token_ids: Sequence[int],
        slice_rows: int,
    ) -> None:
        self._store, self._runner, self._table, self._codec = store, runner, table, codec
        self._eos = frozenset(eos_token_ids)
        self._slice_rows = slice_rows
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason = "length"
        self.ttft_ms = 0.0
        self.per_token_ms = 0.0

    def pieces(self, question_ids: Sequence[int], params: SamplingParams) -> Iterator[str]:
        """Generate; yields text as soon as it can no longer change. Rolls back at any exit.

        Raises:
            QuestionError: question and answer do not fit the reserve.
            SettingsError: ``params`` are none.
        """
        check_kind("params", params, SamplingParams)
        reserve = self._store.spec.reserve_rows
        if len(question_ids) + params.max_new_tokens > reserve:
            raise QuestionError(
                "the question does not fit the reserve",
                required=f"question and answer within {reserve} tokens",
                found=f"{len(question_ids)} + {params.max_new_tokens}",
                fix="Shorten it, lower max_new_tokens, or raise reserve_tokens of the session",
            )
        sampler, scanner = Sampler(params), StopScanner(params.stop)
        detokenizer = Detokenizer(self._codec) if self._codec is not None else None
        began = time.perf_counter()
        try:
            logits = self._prefill(question_ids)
            while True:
                token = sampler.pick(logits, self.token_ids)
                now = time.perf_counter()
                self._clock(now - began)
                if token in self._eos:
                    self.finish_reason = "end"
                    break
                self.token_ids.append(token)
                text = detokenizer.push(token) if detokenizer is not None else ""
                if piece := scanner.push(text):
                    yield piece
                if scanner.stopped:
                    self.finish_reason = "stop"
                    return
                if len(self.token_ids) == params.max_new_tokens:
                    break
                logits = self._step([token])
            tail = detokenizer.finish() if detokenizer is not None else ""
            if piece := scanner.push(tail) + scanner.finish():
                yield piece
        finally:
            self._store.scratch_rows = 0

    def _clock(self, elapsed_s: float) -> None:
        generated = len(self.token_ids)
        if generated == 0:
            self.ttft_ms = elapsed_s * 1e3
        else:
            self.per_token_ms = (elapsed_s * 1e3 - self.ttft_ms) / generated

    def _prefill(self, ids: Sequence[int]) -> Array:
        for start in range(0, len(ids), self._slice_rows):
            logits = self._step(ids[start : start + self._slice_rows])
        return logits

    def _step(self, ids: Sequence[int]) -> Array:
        logits, _ = self._runner.run(self._store, (self._table.lookup(ids),), want_logits=True)
        self._store.scratch_rows += len(ids)
        assert logits is not None
        return logits


class AnswerStream:
    """Iterator over an answer's text; :attr:`answer` holds the whole at the end."""

    def __init__(self, pieces: Generator[str, None, Answer]) -> None:
        self._pieces = pieces
        self._answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._answer = self._answer or end.value
            raise

    def close(self) -> None:
        """Stop here; the session is free again."""
        self._pieces.close()

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            QuestionError: the stream has not been exhausted.
        """
        if self._answer is None:
            raise QuestionError("the answer is not complete", fix="Iterate to the end first")
        return self._answer


def question_ids(question: str | Sequence[int], codec: TextCodec | None) -> list[int]:
    """Token ids of everything behind the video.

    Raises:
        QuestionError: it is empty, not text, or text where there is no tokenizer.
    """
    if not isinstance(question, str):
        found = whole_numbers(question)
        if found is None:
            raise QuestionError(
                "the question is neither text nor token ids",
                required="text, or a list of whole numbers",
                found=reprlib.repr(question),
            )
        ids = [*found]
    elif codec is None:
        raise QuestionError("this bundle has no tokenizer", required="token ids", found="text")
    else:
        ids = codec.question_ids(question)
    if not ids:
        raise QuestionError("the question is empty", fix="Ask something")
    return ids
