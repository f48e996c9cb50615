"""Stages of an export on the terminal: a spinner while one runs, its time and size afterwards."""

from __future__ import annotations

from types import TracebackType

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from hermes_edge.cli.output import size, stderr


class ExportProgress:
    """Shows what the exporter reports, on stderr. A stage that fails keeps its unfinished line."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
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
        self._stages[stage] = self._bars.add_task(stage, total=1, written="")

    def finished(self, stage: str, seconds: float, nbytes: int) -> None:
        """The line stops, with seconds and size."""
        written = f"{seconds:.1f} s" + (f"  {size(nbytes)}" if nbytes else "")
        self._bars.update(self._stages[stage], completed=1, written=written)
