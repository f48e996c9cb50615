"""Exclusive use of an object that several threads call."""

from __future__ import annotations

import threading

from hermes_edge.errors import QuestionError


class Exclusive:
    """A lock that other threads wait for; the thread that holds it gets an error, not a deadlock.

    A streamed answer holds it between two pieces of text, so the same thread can come again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
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
            self._changed.wait_for(lambda: self._holder is None)
            if self._closed:
                raise QuestionError(f"{self._name} is closed", fix="Make a new one")
            self._holder = me

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._holder = None
            self._changed.notify()

    def close(self) -> None:
        """Refuse everyone who comes from now on."""
        self._closed = True
