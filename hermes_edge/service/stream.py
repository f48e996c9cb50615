"""One stream: a source, its memory, and the thread that brings frames from one to the other."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Protocol

from hermes_edge.errors import QuestionError, StorageError
from hermes_edge.runtime import Answer, Frame, SamplingParams, Session
from hermes_edge.runtime.session import GREEDY
from hermes_edge.service.clock import StreamClock
from hermes_edge.service.questions import DueQuestion, TimedQuestion, feed_until_due
from hermes_edge.service.status import Rate, State, StreamStatus, Times
from hermes_edge.snapshots import Saver, SaverCounts
from hermes_edge.sources import Capture

log = logging.getLogger("hermes_edge.streams")

# Rows are counted anew at most so often: it takes about a millisecond for a real model.
_REPORT_EVERY_S = 1.0
# So late may a question be asked whose time comes while a live source gives no frame.
_LATE_S = 0.1


class Listener(Protocol):
    """Told of a stream's timed questions, by the stream's own thread."""

    def question(self, stream: Stream, due: DueQuestion) -> None:
        """It is about to be asked."""

    def piece(self, stream: Stream, text: str) -> None:
        """Text of the answer, as it comes."""

    def answer(self, stream: Stream, due: DueQuestion, answer: Answer) -> None:
        """The answer is complete."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How a stream begins, and what it is asked.

    Attributes:
        name: of the stream.
        questions: asked at their times; the stream ends with the last of them.
        to_the_end: it ends with its source instead, as a stream without questions does.
        params: how answers are decoded.
        chunk_period_s: no frame waits longer than that to be encoded.
        goes_on: time of the stream, and ``time.monotonic()`` at that moment: a live source goes on
            from there, whenever it gives its first frame. None for the source's own times.
        skips_s: frames up to this time are left out.
        restored: whether the memory came from a snapshot.
    """

    name: str
    questions: Sequence[TimedQuestion] = ()
    params: SamplingParams = GREEDY
    to_the_end: bool = False
    chunk_period_s: float = math.inf
    goes_on: tuple[float, float] | None = None
    skips_s: float = -math.inf
    restored: bool = False


class Stream:
    """Feeds a session from a capture until the source ends, the last question is answered, or
    :meth:`end`; saves at the end where there is a saver."""

    def __init__(
        self,
        plan: StreamPlan,
        capture: Capture,
        session: Session,
        listener: Listener,
        saver: Saver | None = None,
    ) -> None:
        self.plan, self.session = plan, session
        self._capture, self._listener, self._saver = capture, listener, saver
        self.error: BaseException | None = None
        """What ended the stream, or the first question that could not be asked."""
        self.told = False
        """Whether the log has that error already."""
        self.unanswered = len(plan.questions)
        self._state: State = "starting"
        self._stopping = False
        self.newest_s = max(plan.skips_s, 0.0)
        self._fed = self._seen_before = self._left_out = 0
        # Times of capture.
        self._newest_fed_s: float | None = None
        self._newest_encoded_s: float | None = None
        self._first_token, self._further_token = Times(), Times()
        self._rate, self._stages_before = Rate(), session.timings()
        self._clock = StreamClock(plan.goes_on, live=capture.source.live)
        self._report()
        self._thread = threading.Thread(target=self._run, name=f"stream {plan.name}", daemon=True)

    @property
    def name(self) -> str:
        """Of the stream."""
        return self.plan.name

    @property
    def ended_early(self) -> str | None:
        """What is missing at the end of the source, in one sentence, or None."""
        return self._capture.source.ended_early

    @property
    def ended(self) -> bool:
        """Whether it feeds and asks no more."""
        return self._state in ("ended", "failed")

    @property
    def silent_s(self) -> float:
        """Seconds since the source gave a frame; 0 once it has ended."""
        return self._capture.counters().silent_s

    def start(self) -> None:
        """Begin to feed."""
        self._thread.start()

    def leave(self) -> None:
        """Take no more frames, encode no more and ask no more; returns at once."""
        self._stopping = True
        self.session.stop_encoding()

    def end(self) -> None:
        """Leave; returns when the call in flight is finished and the memory is saved."""
        self.leave()
        self._capture.close()
        if self._thread.ident is not None:
            self._thread.join()
        elif self._saver is not None:
            self._saver.close()

    def close(self) -> None:
        """End, and give the memory back."""
        self.end()
        self.session.close()

    def ask(self, text: str) -> Answer:
        """A question now, from any thread.

        Raises:
            QuestionError: as of :meth:`Session.ask`, or the stream was told to leave meanwhile.
        """
        with closing(self.session.ask(text, self.plan.params, stream=True)) as pieces:
            while not self._stopping and next(pieces, None) is not None:
                pass
        if self._stopping:
            raise QuestionError(
                "the stream ends, and the question is not answered", found=repr(text)
            )
        self._count(pieces.answer)
        return pieces.answer

    def status(self) -> StreamStatus:
        """How it stands; waits for nothing."""
        seen = self._capture.counters()
        saves = self._saver.counts if self._saver is not None else SaverCounts()
        newest_s = self._newest_encoded_s
        return StreamStatus(
            name=self.name,
            state=self._state if seen.frames_read or self.ended else "starting",
            fps_in=self._rate.of(time.monotonic(), seen.frames_read),
            frames={
                "in": seen.frames_read,
                "sampled": seen.frames_sampled,
                "used": self._fed,
                "dropped": seen.dropped + self._left_out,
                "skipped": seen.still,
                "bad": seen.bad_frames,
            },
            reconnects=seen.reconnects,
            age_s=None if newest_s is None else time.monotonic() - newest_s,
            rows_by_band=self._rows_by_band,
            slab_bytes=self._slab_bytes,
            first_token=self._first_token,
            further_token=self._further_token,
            stages=self.session.timings().since(self._stages_before),
            save_failures=saves.failures,
            save=Times(saves.saves, saves.total_ms),
            pause=Times(saves.saves, saves.pause_ms),
            restored=self.plan.restored,
        )

    def _run(self) -> None:
        self._state = "running"
        state: State = "failed"
        try:
            with ExitStack() as at_the_end:
                at_the_end.callback(self._report)
                at_the_end.callback(self._settle)
                if self._saver is not None:
                    at_the_end.callback(self._saver.close)
                at_the_end.callback(self._capture.close)
                self._watch()
            state = "ended"
        except BaseException as error:  # of any kind: raised again by whoever waits for the stream
            self.error, self.told = error, False
        finally:
            # Whatever happens: a service waits for it.
            self._state = state

    def _settle(self) -> None:  # what was taken from the ring, and not looked at any more
        taken = self._capture.counters().delivered
        self._left_out = taken - self._fed - self._seen_before

    def _watch(self) -> None:
        plan = self.plan
        for due in feed_until_due(
            self._feed, self._frames(), plan.questions, to_the_end=plan.to_the_end
        ):
            if self._stopping:
                return
            self._answer(due)

    def _frames(self) -> Iterator[Frame | float]:
        """The stream's frames at the stream's own times, and times at which there was none.

        Encodes what has waited for a chunk.
        """
        while True:
            asks = self.plan.questions and self._clock.now_s is not None
            most_s = _LATE_S if asks else threading.TIMEOUT_MAX
            frame = self._capture.next_frame(min(self._patience_s(), most_s))
            if self._stopping:
                return
            if frame is not None:
                at_s = self._clock.time_of(frame)
                if at_s > self.plan.skips_s:
                    yield replace(frame, time_s=at_s)
                else:
                    self._seen_before += 1
            elif self._capture.ended:
                # Raises what ended it, where that has come behind the wait.
                self._capture.next_frame(0)
                return
            else:
                if self._patience_s() == 0.0:
                    self.session.catch_up()
                    self._note_encoded()
                if (now_s := self._clock.now_s) is not None:
                    yield now_s

    def _patience_s(self) -> float:
        """How long the oldest frame that is not encoded may still wait for others."""
        since_s = self.session.waiting_since_s
        if since_s is None:
            return math.inf
        return max(since_s + self.plan.chunk_period_s - time.monotonic(), 0.0)

    def _feed(self, frame: Frame) -> None:
        self.session.feed(frame.image, at=frame.time_s, captured_s=frame.captured_s)
        self.newest_s, self._newest_fed_s = frame.time_s, frame.captured_s
        self._fed += 1
        self._note_encoded()
        if time.monotonic() - self._reported_s > _REPORT_EVERY_S:
            self._report()

    def _note_encoded(self) -> None:
        # A frame that was fed may wait for the rest of its chunk.
        if self.session.waiting_since_s is None:
            self._newest_encoded_s = self._newest_fed_s

    def _answer(self, due: DueQuestion) -> None:
        self._listener.question(self, due)
        pieces = self.session.ask(due.question.text, self.plan.params, stream=True)
        try:
            with closing(pieces):  # left in its middle, it would keep the session busy
                for piece in pieces:
                    self._listener.piece(self, piece)
                    if self._stopping:
                        return
            self.unanswered -= 1
            self._count(pieces.answer)
            self._listener.answer(self, due, pieces.answer)
        except (QuestionError, StorageError) as error:
            if not self._capture.source.live:
                raise
            # What cannot be asked or told is no reason to look away from what comes only once.
            log.warning("%s: %s", self.name, error, extra={"figures": {"stream": self.name}})
            self.error, self.told = self.error or error, True

    def _count(self, answer: Answer) -> None:
        self._note_encoded()
        self._first_token.add(answer.waited_ms + answer.catch_up_ms + answer.ttft_ms)
        further = max(len(answer.token_ids) - 1, 0)
        self._further_token.add(answer.per_token_ms * further, further)

    def _report(self) -> None:
        memory = self.session.memory()
        self._rows_by_band = {band.band: band.rows for band in memory.bands}
        self._slab_bytes = memory.slab_bytes + memory.spare_bytes
        self._reported_s = time.monotonic()
