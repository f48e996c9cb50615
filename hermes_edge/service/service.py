"""Several streams on one set of engines: begun together, watched, and ended in order."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hermes_edge.arguments import check_function, check_kind, seconds
from hermes_edge.errors import HermesEdgeError
from hermes_edge.process import resident_bytes
from hermes_edge.runtime import Runtime
from hermes_edge.service.heap import frozen_heap
from hermes_edge.service.status import StreamStatus
from hermes_edge.service.stream import Stream
from hermes_edge.service.watchdog import Watchdog

log = logging.getLogger("hermes_edge.service")

SUMMARY_EVERY_S = 60.0
_LOOK_EVERY_S = 0.05


class Service:
    """Runs streams from :meth:`start` until they end, or until :meth:`stop`.

    Each stream has a thread of its own; whose engine call is next is decided by
    :class:`hermes_edge.runtime.turns.Turns`.
    """

    def __init__(
        self,
        runtime: Runtime,
        streams: Sequence[Stream],
        on_hang: Callable[[float], object],
        *,
        silent_after_s: float,
        engine_timeout_s: float,
    ) -> None:
        """``on_hang`` is called where an engine call has not returned for these seconds.

        Raises:
            SettingsError: an argument of another type, or a time that is not above 0.
        """
        check_kind("runtime", runtime, Runtime)
        check_kind("streams", streams, Sequence)
        for stream in streams:
            check_kind("a stream", stream, Stream)
        check_function("on_hang", on_hang)
        self.streams = tuple(streams)
        self._runtime = runtime
        self._watchdog = Watchdog(
            self._silences,
            lambda: runtime.call_in_flight_s,
            on_hang,
            silent_after_s=seconds("silent_after_s", silent_after_s),
            engine_timeout_s=seconds("engine_timeout_s", engine_timeout_s),
        )

    def start(self) -> None:
        """Begin to feed."""
        for stream in self.streams:
            stream.start()

    def statuses(self) -> list[StreamStatus]:
        """How every stream stands; waits for nothing."""
        silent = self._watchdog.silent
        return [
            replace(status, state="silent")
            if status.state in ("starting", "running") and status.name in silent
            else status
            for status in (stream.status() for stream in self.streams)
        ]

    @property
    def call_in_flight_s(self) -> float:
        """How long the present engine call has taken; 0 where there is none."""
        return self._runtime.call_in_flight_s

    def wait(self, stopped: Callable[[], bool], look: Callable[[], object] | None = None) -> None:
        """Until all streams have ended or ``stopped()``; a summary is logged once a minute.

        Meanwhile this process's Python objects are frozen (``gc.freeze``), and collected once a
        minute: see :mod:`hermes_edge.service.heap`.

        Args:
            stopped: asked many times a second. Where a signal handler has the say, let it set what
                has no lock: see :func:`hermes_edge.cli.signals.stop_on_signals`.
            look: called many times a second.

        Raises:
            SettingsError: an argument that cannot be called.
        """
        check_function("stopped", stopped)
        if look is not None:
            check_function("look", look)
        with frozen_heap():
            self._wait(stopped, look)
        self._tell_failures()

    def _wait(self, stopped: Callable[[], bool], look: Callable[[], object] | None) -> None:
        due_s = time.monotonic() + SUMMARY_EVERY_S
        while not all(stream.ended for stream in self.streams):
            self._tell_failures()
            if look is not None:
                look()
            if stopped():
                break
            time.sleep(_LOOK_EVERY_S)
            if time.monotonic() >= due_s:
                due_s += SUMMARY_EVERY_S
                self.log_summary()
                gc.collect()

    def stop(self) -> None:
        """End all streams: the call in flight is finished, memories are saved."""
        for stream in self.streams:
            stream.leave()
        # All at once: a source that hangs is given two seconds, and there may be many.
        ending = [threading.Thread(target=stream.end) for stream in self.streams]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
        self._tell_failures()
        self._watchdog.close()

    def log_summary(self) -> None:
        """One line for all streams."""
        streams = self.statuses()
        told = "; ".join(map(summary_of, streams))
        figures = {"streams": [figures_of(stream) for stream in streams]}
        log.info("%s", told, extra={"figures": {**figures, "resident_bytes": resident_bytes()}})

    def _tell_failures(self) -> None:
        """Log each once, when it comes; of one stream alone its error is what the caller raises."""
        for stream in self.streams if len(self.streams) > 1 else ():
            error = stream.error
            if stream.ended and error is not None and not stream.told:
                stream.told = True
                foreseen = isinstance(error, HermesEdgeError | OSError)
                log.error(
                    "%s: %s",
                    stream.name,
                    str(error) or type(error).__name__,
                    exc_info=None if foreseen else error,
                    extra={"figures": {"stream": stream.name}},
                )

    def _silences(self) -> Mapping[str, float]:
        return {stream.name: stream.silent_s for stream in self.streams if not stream.ended}


def summary_of(stream: StreamStatus) -> str:
    """A stream in half a line."""
    counts = ", ".join(f"{count:,} {what}" for what, count in stream.frames.items() if count)
    age = "" if stream.age_s is None else f", age {stream.age_s:.1f} s"
    first = stream.first_token
    told = f"{stream.name} {stream.state}: {counts or 'no frame'}{age}, {stream.rows:,} rows"
    return f"{told}, TTFT {first.last_ms:.0f} ms" if first.count else told


def figures_of(stream: StreamStatus) -> dict[str, object]:
    """The same for machines."""
    return {
        "stream": stream.name,
        "state": stream.state,
        "frames": dict(stream.frames),
        "reconnects": stream.reconnects,
        "age_s": stream.age_s,
        "rows": stream.rows,
        "ttft_ms": stream.first_token.last_ms if stream.first_token.count else None,
        "save_failures": stream.save_failures,
    }
