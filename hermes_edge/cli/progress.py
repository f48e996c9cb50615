"""Stages of an export on the terminal: a spinner while one runs, its time and size afterwards."""

from __future__ import annotations

from types import TracebackType

from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from hermes_edge.cli.output import size, stderr


class ExportProgress:
    """Shows what the exporter reports, on stderr. A stage that fails keeps its unfinished line."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            _SecondsColumn(),
            TextColumn("{task.fields[written]}", markup=False),
            console=stderr(),
        )
        self._stages: dict[str, TaskID] = {}

    def __enter__(self) -> ExportProgress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def started(self, stage: str) -> None:
        """A new line with a running clock."""
        self._stages[stage] = self._bars.add_task(stage, total=1, written="", seconds=None)

    def finished(self, stage: str, seconds: float, nbytes: int) -> None:
        """The line stops, with seconds and size."""
        written = size(nbytes) if nbytes else ""
        self._bars.update(self._stages[stage], completed=1, written=written, seconds=seconds)


class _SecondsColumn(ProgressColumn):
    """A running clock; in the end the exporter's own figure."""

    def render(self, task: Task) -> Text:
        seconds: float | None = task.fields["seconds"]
        return Text(f"{task.elapsed or 0.0 if seconds is None else seconds:7.1f} s")
