"""Exclusive use of an object that several threads call."""

from __future__ import annotations

import threading
from collections import deque

from hermes_edge.errors import QuestionError


class Exclusive:
    """A lock that other threads wait for; the thread that holds it gets an error, not a deadlock.

    A streamed answer holds it between two pieces of text, so the same thread can come again.
    Threads are served in the order in which they came: a busy asker cannot starve the feeder.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._holder: int | None = None
        self._closed = False

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            if self._holder == me:
                raise QuestionError(
                    f"{self._name} is busy with a streamed answer",
                    fix="Iterate to its end or close() it first",
                )
            ticket = object()
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._holder is None and self._waiting[0] is ticket)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            if self._closed:
                raise QuestionError(f"{self._name} is closed", fix="Make a new one")
            self._holder = me

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._holder = None
            self._changed.notify_all()

    def close(self) -> None:
        """Refuse everyone who comes from now on."""
        self._closed = True
