"""Who may use the engines next, and who may use a session."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from hermes_edge.engines import Engine
from hermes_edge.engines.views import Array
from hermes_edge.errors import QuestionError
from hermes_edge.runtime import Answer, MemoryReport, Runtime, SamplingParams, Session
from hermes_edge.runtime.exclusive import Exclusive
from hermes_edge.runtime.factory import SessionFactory
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


def test_a_call_without_frames_waits_like_a_frame_that_came_when_it_was_asked_for() -> None:
    turns = Turns()
    callers = Callers(turns)
    with turns.turn(Claim()):
        before = time.monotonic()
        callers.call("probe of a save", Claim())
        for more in range(3):
            callers.call(f"newer frame {more}", Claim(oldest_s=time.monotonic()))
        callers.call("older frame", Claim(oldest_s=before))
    assert callers.join() == [
        "older frame",
        "probe of a save",
        *(f"newer frame {more}" for more in range(3)),
    ]


def test_a_turn_within_a_turn_is_the_same_one() -> None:
    turns, claim = Turns(), Claim()
    with turns.turn(claim):
        with turns.turn(claim):
            pass
        assert turns.in_flight_s > 0
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


def test_a_claim_knows_how_long_it_has_waited() -> None:
    now_s, waiting, holder = 10.0, Claim(), Claim()
    turns = Turns(clock=lambda: now_s)
    callers = Callers(turns)
    with turns.turn(holder):
        callers.call("waits", waiting)
        now_s = 15.0
    callers.join()
    assert (waiting.waited_s, holder.waited_s) == (5.0, 0.0)


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


class Calls:
    """Engine calls of all sessions, in order; one of them is held up until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, int]] = []
        self.hold_at = -1
        self.held, self.go_on = threading.Event(), threading.Event()
        call = SessionFactory._call

        def observed(factory: SessionFactory, claim: Claim, engine: Engine, *views: Any) -> None:
            self.made.append((engine.graph.name, threading.get_ident()))
            if len(self.made) - 1 == self.hold_at:
                self.held.set()
                assert self.go_on.wait(20)
            call(factory, claim, engine, *views)

        monkeypatch.setattr(SessionFactory, "_call", observed)

    def hold(self, index: int) -> None:
        self.made.clear()
        self.held.clear()
        self.go_on.clear()
        self.hold_at = index

    def ask_behind(
        self, index: int, session: Session, feed: Callable[[], None], ask: Callable[[], object]
    ) -> tuple[int | None, int | None]:
        """Ask while the feed's engine call of this index is held up; both threads' idents."""
        self.hold(index)
        threads = feeder, asker = threading.Thread(target=feed), threading.Thread(target=ask)
        feeder.start()
        assert self.held.wait(20)
        asker.start()
        until(lambda: len(session._use._urgent) == 1)
        self.go_on.set()
        for thread in threads:
            thread.join(timeout=60)
            assert not thread.is_alive()
        return feeder.ident, asker.ident


@pytest.mark.parametrize(
    ("policy", "workspace_bytes"),
    [
        # So little workspace that a frame of 16 rows takes several passes, and probes their own.
        pytest.param("hermes", 1 << 14, id="probes of their own"),
        pytest.param("hermes", 1 << 20, id="probes that ride"),
        pytest.param("hermes-released", 1 << 20, id="embeddings"),
    ],
)
def test_a_question_is_next_whatever_its_own_stream_is_doing_and_changes_nothing(
    policy: str,
    workspace_bytes: int,
    runtime: Runtime,
    visual_tokens: VisualTokens,
    snapshot: Snapshot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch)

    def session() -> Session:
        return runtime.session(
            policy=policy,
            budget_tokens=64,
            chunk_frames=4,
            reserve_tokens=256,
            workspace_bytes=workspace_bytes,
        )

    alone, asked = session(), session()
    for chunk in range(3):
        for one in (alone, asked):
            one.feed_tokens(visual_tokens(4, chunk), float(chunk))
    held_up, answers, params = set[str](), list[Answer](), SamplingParams(max_new_tokens=2)
    for index in itertools.count():
        tokens, at = visual_tokens(4, 3 + index), 3.0 + index
        calls.hold(-1)
        alone.feed_tokens(tokens, at)
        of_a_chunk = [name for name, _ in calls.made]
        if index >= len(of_a_chunk):
            break
        held_up.add(of_a_chunk[index])
        feeder, asker = calls.ask_behind(
            index,
            asked,
            partial(asked.feed_tokens, tokens, at),
            lambda: answers.append(asked.ask([5, 6, 7], params)),
        )
        assert len(answers) == index + 1
        askers = [i for i, (_, thread) in enumerate(calls.made) if thread == asker]
        # Behind the call that was held up, and all of them at once.
        assert askers == [*range(index + 1, index + 1 + len(askers))]
        assert [name for name, thread in calls.made if thread == feeder] == of_a_chunk
        assert snapshot(asked) == snapshot(alone)
    assert {"decoder", "score", "compact"} <= held_up


@pytest.mark.parametrize("seen", [True, False], ids=["frames", "tokens"])
def test_a_question_goes_before_a_call_that_its_own_stream_waits_for(
    seen: bool,
    runtime: Runtime,
    visual_tokens: VisualTokens,
    snapshot: Snapshot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch)
    other, asked, alone = (runtime.session(budget_tokens=64, chunk_frames=4) for _ in range(3))
    picture = np.full((8, 8, 3), 50, dtype=np.uint8)
    for session in (other, asked, alone):
        session.feed_tokens(visual_tokens(4, 0), 0.0)

    def feed(session: Session) -> None:
        for at in range(1, 5) if seen else ():
            session.feed(picture, float(at))
        if not seen:
            session.feed_tokens(visual_tokens(4, 1), 1.0)

    feed(alone)
    calls.hold(0)
    threads = [threading.Thread(target=feed, args=[session]) for session in (other, asked)]
    asker = threading.Thread(target=asked.ask, args=[[5, 6, 7], SamplingParams(max_new_tokens=2)])
    threads[0].start()
    assert calls.held.wait(20)
    threads[1].start()
    until(lambda: len(asked._parts.turns._waiting) == 1)
    asker.start()
    until(lambda: asked._use._holder == asker.ident)
    calls.go_on.set()
    for thread in (*threads, asker):
        thread.join(timeout=60)
        assert not thread.is_alive()
    ids = [thread for _, thread in calls.made]
    # Behind the call in flight: the frames that wait are a part of what it is about.
    assert ids[:3] == [threads[0].ident, asker.ident, asker.ident]
    assert snapshot(asked) == snapshot(alone)


@pytest.mark.parametrize("index", range(3))
def test_a_question_that_comes_with_the_first_frame_waits_until_there_is_something_to_see(
    index: int, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    session = runtime.session(budget_tokens=64, chunk_frames=4, workspace_bytes=1 << 14)
    answers: list[Answer] = []
    reports: list[MemoryReport] = []

    def ask() -> None:
        answers.append(session.ask([5, 6, 7]))
        reports.append(session.memory())

    calls.ask_behind(
        index,
        session,
        lambda: session.feed(np.zeros((8, 8, 3), dtype=np.uint8), 1.0),
        ask,
    )
    assert [name for name, _ in calls.made[:3]] == ["vision", "decoder", "decoder"]
    prefix_rows = session._parts.store.spec.prefix_rows
    assert [answer.memory_rows > prefix_rows for answer in answers] == [True]
    # Though the feed has not returned when it is asked.
    assert [answer.video_time_s for answer in answers] == [1.0]
    assert [report.newest_s for report in reports] == [1.0]


def test_stages_do_not_count_the_time_that_others_have_the_session(
    runtime: Runtime, visual_tokens: VisualTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    session = runtime.session(policy="hermes", budget_tokens=64, chunk_frames=4)
    for chunk in range(3):
        session.feed_tokens(visual_tokens(4, chunk), float(chunk))
    before = session.timings()
    pause_s, took_s = 0.3, list[float]()

    def feed() -> None:
        began = time.monotonic()
        session.feed_tokens(visual_tokens(4, 3), 3.0)
        took_s.append(time.monotonic() - began)

    def ask_at_leisure() -> None:
        with session._use.urgent():
            time.sleep(pause_s)

    calls.ask_behind(2, session, feed, ask_at_leisure)
    after = session.timings()
    stages_ms = (
        getattr(after, stage) - getattr(before, stage)
        for stage in ("encode_ms", "score_ms", "compact_ms")
    )
    assert after.chunks == before.chunks + 1
    assert 0 < sum(stages_ms) <= 1e3 * (took_s[0] - pause_s)
