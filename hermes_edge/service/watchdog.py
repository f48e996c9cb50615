"""Notices what has stopped: a source that gives nothing, an engine call that does not return."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger("hermes_edge.watchdog")


class Watchdog:
    """A thread that looks once a second.

    A silent source is told of once, and once more when frames come again; reconnecting is the
    source's own business. An engine call cannot be ended from outside: the process must.
    """

    def __init__(
        self,
        silences: Callable[[], Mapping[str, float]],
        in_flight_s: Callable[[], float],
        on_hang: Callable[[float], object],
        *,
        silent_after_s: float,
        engine_timeout_s: float,
        every_s: float = 1.0,
    ) -> None:
        """Start.

        Args:
            silences: seconds since each running stream's source gave a frame.
            in_flight_s: how long the present engine call has taken.
            on_hang: called once with those seconds, where they are too many.
            silent_after_s: silence that is told of.
            engine_timeout_s: no call takes so long.
            every_s: from look to look.
        """
        self._silences, self._in_flight_s, self._on_hang = silences, in_flight_s, on_hang
        self._silent_after_s, self._engine_timeout_s = silent_after_s, engine_timeout_s
        self._silent: dict[str, float] = {}
        self._stop = threading.Event()
        self._every_s = every_s
        self._hangs_s = 0.0
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    @property
    def silent(self) -> Sequence[str]:
        """Streams whose source is silent."""
        return [*self._silent]

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look_at_sources()
            took_s = self._in_flight_s()
            # A look may come late because the whole process was stopped: the call stood still, too.
            self._hangs_s = min(took_s, self._hangs_s + 2 * self._every_s)
            if self._hangs_s > self._engine_timeout_s:
                log.critical(
                    "an engine call has taken %.0f s, longer than the %.0f s allowed",
                    took_s,
                    self._engine_timeout_s,
                )
                self._on_hang(took_s)
                return

    def _look_at_sources(self) -> None:
        silences = self._silences()
        for name, silent_s in silences.items():
            if silent_s > self._silent_after_s:
                if name not in self._silent:
                    _tell(name, "no frame for %.0f s", silent_s)
                self._silent = {**self._silent, name: silent_s}
        for name in [name for name in self._silent if silences.get(name, 0.0) < self._silent[name]]:
            silent_s = self._silent[name]
            self._silent = {other: s for other, s in self._silent.items() if other != name}
            if name in silences:
                _tell(name, "frames again after %.0f s", silent_s)


def _tell(name: str, text: str, silent_s: float) -> None:
    log.warning(f"%s: {text}", name, silent_s, extra={"figures": {"stream": name}})
