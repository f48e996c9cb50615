"""Exclusive use of an object that several threads call."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hermes_edge.errors import QuestionError


class Exclusive:
    """A lock that other threads wait for; the thread that holds it gets an error, not a deadlock.

    A streamed answer holds it between two pieces of text, so the same thread can come again.
    Threads are served in the order in which they came, urgent ones first, and also in between where
    the holder lends its hold. Behind an urgent one it is the others' turn: a busy asker cannot
    starve the feeder.
    """

    def __init__(self, name: str, on_urgent: Callable[[], object] = lambda: None) -> None:
        """``on_urgent`` is called when an urgent one has come to the line."""
        self._name, self._on_urgent = name, on_urgent
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._urgent: deque[object] = deque()
        self._holder: int | None = None
        self._lent = False
        self._owed = False  # to those who wait without urgency
        self._closed = False

    def __enter__(self) -> None:
        self._acquire(self._waiting)

    def __exit__(self, *_: object) -> None:
        self._release()

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """Go before all who wait in line, and in between where the holder lets it."""
        self._acquire(self._urgent)
        try:
            yield
        finally:
            self._release()

    @property
    def is_asked_for(self) -> bool:
        """Whether an urgent one waits."""
        return bool(self._urgent)

    def let_urgent_in(self) -> None:
        """The holder lends its hold to an urgent one that waits; nobody else gets in between."""
        with self._changed:
            if not self._urgent:
                return
            me, self._holder, self._lent, self._owed = self._holder, None, True, False
            self._changed.notify_all()
            try:
                self._changed.wait_for(
                    lambda: self._holder is None and (self._owed or not self._urgent)
                )
            finally:
                # An interrupted wait must end with the hold, too: the caller will release it.
                self._changed.wait_for(lambda: self._holder is None)
                self._holder, self._lent, self._owed = me, False, False

    def close(self) -> None:
        """Refuse everyone who comes from now on."""
        self._closed = True

    def _acquire(self, line: deque[object]) -> None:
        me, ticket = threading.get_ident(), object()
        with self._changed:
            if me == self._holder:
                raise QuestionError(
                    f"{self._name} is busy with a streamed answer",
                    fix="Iterate to its end or close() it first",
                )
            line.append(ticket)
            try:
                if line is self._urgent:
                    self._on_urgent()
                self._changed.wait_for(lambda: self._may_enter(line, ticket))
            finally:
                line.remove(ticket)
                self._changed.notify_all()
            if self._closed:
                raise QuestionError(f"{self._name} is closed", fix="Make a new one")
            self._holder = me
            self._owed = line is self._urgent

    def _may_enter(self, line: deque[object], ticket: object) -> bool:
        if self._holder is not None or line[0] is not ticket:
            return False
        if line is self._urgent:
            return not (self._owed and (self._waiting or self._lent))
        return not self._lent and (self._owed or not self._urgent)

    def _release(self) -> None:
        with self._changed:
            self._holder = None
            self._changed.notify_all()
