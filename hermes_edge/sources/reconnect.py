"""How long to wait before a lost source is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Exponential back-off with full jitter, so that cameras that fell together rise apart.

    The n-th wait is uniform between ``least_s`` and min(``most_s``, ``first_s`` * 2**n). Waits
    start over once a connection has held for ``settled_s``: a source that comes up and falls over
    again is not hammered.
    """

    def __init__(
        self,
        first_s: float = 0.5,
        most_s: float = 30.0,
        *,
        least_s: float = 0.1,
        settled_s: float = 10.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._least_s, self._settled_s = least_s, settled_s
        self._uniform = uniform
        self._limit_s = first_s

    def next_s(self) -> float:
        """Seconds to wait now."""
        limit_s = self._limit_s
        self._limit_s = min(2 * limit_s, self._most_s)
        return self._uniform(self._least_s, max(limit_s, self._least_s))

    def connection_lasted(self, seconds: float) -> None:
        """A connection was lost that had held for ``seconds``."""
        if seconds >= self._settled_s:
            self._limit_s = self._first_s
