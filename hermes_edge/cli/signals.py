"""SIGINT and SIGTERM: the first asks for an orderly end, a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Whether the first signal has come.

    To be asked again and again: a ``threading.Event`` to wait for has a lock, and a handler that
    interrupts its own thread between taking and giving it back waits for itself (CPython 3.11).
    """
    came: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        came.append(number)

    # The main thread runs no handler while it is in a long call of an engine or a driver. What
    # the interpreter writes the moment that a signal comes, another thread reads.
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    other_file = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_at_the_second, args=[heard], name="signals", daemon=True).start()
    try:
        yield lambda: bool(came)
    finally:
        signal.set_wakeup_fd(other_file)
        for number, handler in before.items():
            signal.signal(number, handler)
        told.close()


def _end_at_the_second(heard: socket.socket) -> None:
    seen = 0
    with heard:
        while data := heard.recv(64):
            for number in data:
                seen += number in _SIGNALS
                if seen > 1:
                    # Threads may hold locks and a GPU may hang: nothing is worth waiting for.
                    os._exit(128 + number)
