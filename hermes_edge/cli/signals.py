"""SIGINT and SIGTERM: the first asks for an orderly end, a second one ends the process at once."""

from __future__ import annotations

import os
import signal
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
        if len(came) > 1:
            # Threads may hold locks and a GPU may hang: nothing is worth waiting for any more.
            os._exit(128 + number)

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
