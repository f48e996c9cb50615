"""Whose engine call is next: questions before frames, then the frame that has waited longest.

One call runs at a time: a second one would double the workspace and gain nothing, since each uses
the whole device. So order is all there is to decide, and it is decided anew before every call: a
question waits for the call in flight. Where one question follows another without a pause, one call
for frames goes in between: no asker can stop the streams.

Who waits with a session in hand lends it to an asker meanwhile, and prepares its call only when the
engines are its own: so a question does not wait for a call of its own stream that has not begun.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hermes_edge.errors import QuestionError
from hermes_edge.runtime.exclusive import Exclusive

# A reader of an answer is back within microseconds for the next token, before which no frame shall
# slip in; one that is gone must not hold up the other streams.
ANSWER_PATIENCE_S = 0.1


class GivenUp(QuestionError):
    """A call for frames that is not begun, because its session encodes no more."""

    def __init__(self) -> None:
        super().__init__("the session encodes no more", fix="Save it, and restore it")


@dataclass(slots=True, eq=False)
class Claim:
    """What a session wants of the engines now.

    Attributes:
        questions: that are being answered, or wait to be.
        oldest_s: ``time.monotonic()`` at which its oldest frame came that is not encoded yet.
        newest_s: the same of its newest frame, or when it was made.
        waited_s: seconds that it has waited for its turns, or lent the session to a question.
        gives_up: whether it begins no call for frames any more.
    """

    questions: int = 0
    oldest_s: float = math.inf
    newest_s: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    gives_up: bool = False

    def go_on(self) -> None:
        """Raise GivenUp where no more is to be done for frames."""
        if self.gives_up:
            raise GivenUp

    def came(self, captured_s: float | None) -> None:
        """A frame has come that was captured then; None is now."""
        self.newest_s = time.monotonic() if captured_s is None else captured_s
        self.oldest_s = min(self.oldest_s, self.newest_s)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """``came_s`` is what those go by who bring no frames, as a save's probe."""

    claim: Claim
    came_s: float
    ticket: int


class Turns:
    """Lends the engines to one call at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._tickets = itertools.count()
        self._waiting: list[_Waiting] = []
        self._began_s: float | None = None
        self._holder: int | None = None
        self._quiet_until_s = -math.inf
        self._frame_is_owed = False

    @property
    def in_flight_s(self) -> float:
        """Seconds that the present call has taken so far; 0 where there is none."""
        began_s = self._began_s
        return 0.0 if began_s is None else self._clock() - began_s

    @contextmanager
    def turn(self, claim: Claim, use: Exclusive | None = None) -> Iterator[None]:
        """Wait until it is this claim's turn, and hold the engines; again for a turn within it.

        ``use`` is what the caller holds, and lends once, where somebody asks before it is its turn.
        """
        if self._holder == threading.get_ident():
            yield
            return
        me = _Waiting(claim, self._clock(), next(self._tickets))
        waited_s = claim.waited_s
        try:
            while not self._queue(me, use):
                assert use is not None
                use.let_urgent_in()
                use = None
            # Whom the session was lent to waited on the same claim: that is a part of this.
            claim.waited_s = waited_s + self._clock() - me.came_s
            yield
        finally:
            # An interrupt may come before they are held, and at once when they are.
            if self._holder == threading.get_ident():
                self._give_back(claim)

    @contextmanager
    def question(self, claim: Claim) -> Iterator[None]:
        """While this lasts, the claim's calls go first."""
        with self._changed:
            claim.questions += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                claim.questions -= 1
                self._quiet_until_s = -math.inf
                self._frame_is_owed = True
                self._changed.notify_all()

    def wake(self) -> None:
        """Look again who may go, or lend."""
        with self._changed:
            self._changed.notify_all()

    def _queue(self, me: _Waiting, use: Exclusive | None) -> bool:
        """Wait for the engines and take them; False where somebody asks for ``use`` before that."""
        with self._changed:
            self._waiting.append(me)
            try:
                while True:
                    if use is not None and use.is_asked_for:
                        return False
                    if self._may_go(me):
                        break
                    self._changed.wait(self._seconds_of_quiet())
                self._began_s, self._holder = self._clock(), threading.get_ident()
                self._frame_is_owed = False
                return True
            finally:
                self._waiting.remove(me)
                self._changed.notify_all()

    def _give_back(self, claim: Claim) -> None:
        with self._changed:
            self._began_s = self._holder = None
            if claim.questions:
                self._quiet_until_s = self._clock() + ANSWER_PATIENCE_S
            self._changed.notify_all()

    def _may_go(self, me: _Waiting) -> bool:
        if self._began_s is not None or min(self._waiting, key=self._rank) is not me:
            return False
        # A frame that is owed does not wait for the next token of another answer, which would
        # wait for it in turn.
        return bool(me.claim.questions) or self._frame_is_owed or self._seconds_of_quiet() is None

    def _rank(self, waiting: _Waiting) -> tuple[bool, float, int]:
        asked = waiting.claim.questions > 0
        since_s = min(waiting.claim.oldest_s, waiting.came_s)
        return asked == self._frame_is_owed, since_s, waiting.ticket

    def _seconds_of_quiet(self) -> float | None:
        """How long frames still leave the engines to an answer; None where they need not."""
        left_s = self._quiet_until_s - self._clock()
        return left_s if left_s > 0 else None
