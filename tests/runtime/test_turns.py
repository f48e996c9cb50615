"""Who may use the engines next, and who may use a session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from hermes_edge.engines.views import Array
from hermes_edge.errors import QuestionError
from hermes_edge.runtime import Runtime, SamplingParams, Session
from hermes_edge.runtime.exclusive import Exclusive
from hermes_edge.runtime.turns import ANSWER_PATIENCE_S, Claim, Turns

VisualTokens = Callable[[int, int], Array]
Snapshot = Callable[[Session], list[bytes]]


class Callers:
    """Threads that each take one turn, and the order in which they got it."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.order: list[str] = []
        self._threads: list[threading.Thread] = []

    def call(self, name: str, claim: Claim) -> None:
        waiting = len(self._turns._waiting)

        def run() -> None:
            with self._turns.turn(claim):
                self.order.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)
        until(lambda: len(self._turns._waiting) > waiting)

    def join(self) -> list[str]:
        for thread in self._threads:
            thread.join(timeout=20)
            assert not thread.is_alive()
        return self.order


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_questions_go_before_frames_and_old_frames_before_new_ones() -> None:
    turns, asker = Turns(), Claim(oldest_s=50.0)
    callers = Callers(turns)
    with turns.turn(Claim()):
        callers.call("new frame", Claim(oldest_s=9.0))
        callers.call("old frame", Claim(oldest_s=3.0))
        callers.call("as old, came later", Claim(oldest_s=3.0))
        callers.call("asked", asker)
        with turns.question(asker):
            assert turns.in_flight_s > 0
            asker_is_first = min(turns._waiting, key=turns._rank).claim is asker
    assert asker_is_first
    # The question was over when the engines became free: a frame is owed its turn.
    assert callers.join() == ["old frame", "as old, came later", "new frame", "asked"]
    assert turns.in_flight_s == 0.0


def test_a_question_is_next_when_the_call_in_flight_ends() -> None:
    # A clock that stands still: the reader of this answer is never late.
    turns, asker = Turns(clock=lambda: 0.0), Claim()
    callers = Callers(turns)
    with turns.question(asker):
        with turns.turn(Claim()):
            for age in range(3):
                callers.call(f"frame {age}", Claim(oldest_s=float(age)))
            callers.call("first token", asker)
        until(lambda: callers.order == ["first token"])
        with turns.turn(asker):
            callers.order.append("second token")
    assert callers.join() == ["first token", "second token", "frame 0", "frame 1", "frame 2"]


def test_frames_go_on_when_the_reader_of_an_answer_stays_away() -> None:
    turns, asker = Turns(), Claim()
    callers = Callers(turns)
    with turns.question(asker):
        with turns.turn(asker):
            callers.call("frame", Claim())
        began = time.monotonic()
        assert callers.join() == ["frame"]
        # The lower bound: as long an answer has the engines to itself between two tokens.
        assert time.monotonic() - began > 0.5 * ANSWER_PATIENCE_S


def test_behind_an_answer_a_waiting_frame_goes_before_the_next_question() -> None:
    turns, asker = Turns(clock=lambda: 0.0), Claim()
    callers = Callers(turns)
    with turns.turn(Claim()):
        callers.call("frame", Claim())
        callers.call("next frame", Claim())
        with turns.question(asker):
            pass
        next_question = turns.question(asker)
        next_question.__enter__()
        callers.call("next question", asker)
    until(lambda: len(callers.order) == 2)
    next_question.__exit__(None, None, None)
    assert callers.join() == ["frame", "next question", "next frame"]


def test_a_frame_that_is_owed_does_not_wait_for_another_answer() -> None:
    # A clock that stands still: who waits for the other answer's next token waits for ever.
    turns, asker, other = Turns(clock=lambda: 0.0), Claim(), Claim()
    callers = Callers(turns)
    with turns.question(asker):
        with turns.turn(asker):
            callers.call("frame", Claim())
            with turns.question(other):
                pass
        assert callers.join() == ["frame"]


def test_a_call_that_fails_frees_the_engines() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.turn(Claim()):
        raise ZeroDivisionError
    with turns.turn(Claim()):
        pass


def test_an_urgent_one_gets_in_where_the_holder_lets_it_and_nobody_else() -> None:
    use, log = Exclusive("the session"), list[str]()
    threads: list[threading.Thread] = []

    def start(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    def ordinary() -> None:
        with use:
            log.append("ordinary")

    def urgent() -> None:
        with use.urgent():
            log.append("urgent")

    with use:
        use.let_urgent_in()
        start(ordinary)
        until(lambda: len(use._waiting) == 1)
        use.let_urgent_in()
        assert log == []
        start(urgent)
        start(urgent)
        until(lambda: len(use._urgent) == 2)
        use.let_urgent_in()
        assert log == ["urgent"]
        log.append("holder")
        use.let_urgent_in()
        assert log == ["urgent", "holder", "urgent"]
    for thread in threads:
        thread.join(timeout=20)
    assert log == ["urgent", "holder", "urgent", "ordinary"]


def test_urgent_ones_without_a_pause_let_the_others_in() -> None:
    use, done = Exclusive("the session"), threading.Event()

    def ask_on_and_on() -> None:
        while not done.is_set():
            with use.urgent():
                time.sleep(0)

    askers = [threading.Thread(target=ask_on_and_on) for _ in range(3)]
    for asker in askers:
        asker.start()
    for _ in range(50):
        with use:
            use.let_urgent_in()
    done.set()
    for asker in askers:
        asker.join(timeout=20)
        assert not asker.is_alive()


def test_closing_refuses_urgent_ones_and_a_lender_gets_its_hold_back() -> None:
    use, refused = Exclusive("the session"), list[str]()

    def ask() -> None:
        try:
            with use.urgent():
                pass
        except QuestionError as error:
            refused.append(str(error))

    with use:
        asker = threading.Thread(target=ask)
        asker.start()
        until(lambda: len(use._urgent) == 1)
        use.close()
        use.let_urgent_in()
        with pytest.raises(QuestionError, match="busy with a streamed answer"):
            use.__enter__()
    asker.join(timeout=20)
    assert refused == ["the session is closed. Make a new one"]


def test_a_question_comes_between_the_slices_of_a_chunk_and_changes_nothing(
    runtime: Runtime,
    visual_tokens: VisualTokens,
    snapshot: Snapshot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def session() -> Session:
        # So little workspace that a frame of 16 rows takes several passes.
        return runtime.session(
            policy="hermes",
            budget_tokens=64,
            chunk_frames=4,
            reserve_tokens=256,
            workspace_bytes=1 << 14,
        )

    alone, asked = session(), session()
    for chunk in range(3):
        alone.feed_tokens(visual_tokens(4, chunk), float(chunk))
    for chunk in range(2):
        asked.feed_tokens(visual_tokens(4, chunk), float(chunk))

    passes: list[int] = []
    in_call, go_on = threading.Event(), threading.Event()
    run = asked._parts.runner.run

    def observed(store: Any, embeds: Any, **options: Any) -> Any:
        passes.append(threading.get_ident())
        if len(passes) == 2:
            in_call.set()
            assert go_on.wait(20)
        return run(store, embeds, **options)

    monkeypatch.setattr(asked._parts.runner, "run", observed)
    feeder = threading.Thread(target=lambda: asked.feed_tokens(visual_tokens(4, 2), 2.0))
    feeder.start()
    assert in_call.wait(20)
    answers = []
    asker = threading.Thread(
        target=lambda: answers.append(asked.ask([5, 6, 7], SamplingParams(max_new_tokens=3)))
    )
    asker.start()
    until(lambda: len(asked._use._urgent) == 1)
    go_on.set()
    for thread in (asker, feeder):
        thread.join(timeout=60)
        assert not thread.is_alive()
    first, last = passes.index(asker.ident or 0), len(passes) - passes[::-1].index(asker.ident or 0)
    # Behind the pass that was running, all at once, and frames went on afterwards.
    assert first == 2
    assert set(passes[first:last]) == {asker.ident}
    assert passes[last:] and set(passes[last:]) == {feeder.ident}
    assert len(answers) == 1
    assert snapshot(asked) == snapshot(alone)
