"""How an export tells its caller where it is, and keeps other libraries' bars off the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from transformers.utils import logging as transformers_logging


class Progress(Protocol):
    """Receives every stage of an export or a verification, in order, never nested."""

    def started(self, stage: str) -> None:
        """A stage begins; ``stage`` is a short name such as ``decoder``."""

    def finished(self, stage: str, seconds: float, nbytes: int) -> None:
        """The stage is done; ``nbytes`` is what it wrote, 0 where it wrote nothing."""


class NoProgress:
    """For callers that do not watch."""

    def started(self, stage: str) -> None:
        """Nothing."""

    def finished(self, stage: str, seconds: float, nbytes: int) -> None:
        """Nothing."""


class Stage:
    """The bytes that a running stage has written so far."""

    def __init__(self) -> None:
        self.nbytes = 0


@contextmanager
def stage(progress: Progress, name: str) -> Iterator[Stage]:
    """Report one stage; a stage that fails is not reported as finished."""
    progress.started(name)
    start = time.perf_counter()
    record = Stage()
    yield record
    progress.finished(name, time.perf_counter() - start, record.nbytes)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars of transformers inside; its setting is restored."""
    logs: Any = transformers_logging
    shown = logs.is_progress_bar_enabled()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logs.enable_progress_bar()
