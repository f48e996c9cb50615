"""The streams as a table that lives while they run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.live import Live
from rich.table import Table

from hermes_edge.cli.output import stdout
from hermes_edge.service.status import StreamStatus

_EVERY_S = 0.5
COLUMNS = ("stream", "state", "fps in", "in", "used", "dropped", "still", "age", "rows", "TTFT")


class StreamTable:
    """Drawn at the bottom of the terminal; what is printed meanwhile goes above it."""

    def __init__(self, statuses: Callable[[], Sequence[StreamStatus]]) -> None:
        self._statuses = statuses
        # Where stderr is no terminal, it is a file: log lines belong there, not above the table.
        on_terminal = sys.stderr.isatty()
        # The file itself: the table's own lines go to no stand-in.
        console = stdout(sys.stdout)
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=on_terminal)
        self._drawn_s = 0.0

    def __enter__(self) -> StreamTable:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.draw()
        self._live.stop()

    def look(self) -> None:
        """Draw anew, where it is time."""
        if time.monotonic() - self._drawn_s >= _EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Draw now."""
        self._drawn_s = time.monotonic()
        self._live.update(table_of(self._statuses()), refresh=True)


def table_of(streams: Sequence[StreamStatus]) -> Table:
    """One row a stream."""
    table = Table(*COLUMNS, box=None)
    for stream in streams:
        frames = stream.frames
        table.add_row(
            stream.name,
            stream.state,
            f"{stream.fps_in:.1f}",
            *(f"{frames.get(what, 0):,}" for what in ("in", "used", "dropped", "skipped")),
            "" if stream.age_s is None else f"{stream.age_s:.1f} s",
            f"{stream.rows:,}",
            f"{stream.first_token.last_ms:.0f} ms" if stream.first_token.count else "",
        )
    return table
