"""``hermes-edge recall``: tables for people, one JSON document, and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hermes_edge.errors import StorageError
from hermes_edge.shipped import TINY_BUNDLE

_TELL_EVERY = 5


def recall(
    bundle: Annotated[Path, typer.Argument(help="Bundle to ask.")] = TINY_BUNDLE,
    policy: Annotated[
        list[str] | None, typer.Option(help="A memory to compare; may be repeated. All by default.")
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(metavar="PERCENT", help="Of 48 frames' visual tokens; may be repeated."),
    ] = None,
    streams: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FRAMESxSTREAMSxQUESTIONS", help="Such as 48x120x12; may be repeated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="First stream of the split.")] = 0,
    split: Annotated[str, typer.Option(help="train, validation or held-out.")] = "held-out",
    threads: Annotated[int, typer.Option(min=0, help="Of each job; 0: one per core, shared.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the streams.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every answer as JSON here.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the accuracies here, as .png or .svg.")
    ] = None,
) -> None:
    """Compare memories by the questions that they can still answer."""
    # Here, so that the other verbs start without the runtime.
    from rich.console import Console
    from rich.progress import Progress

    from hermes_edge.recall.document import write_document
    from hermes_edge.recall.plot import check_plot, write_plot
    from hermes_edge.recall.run import RecallSettings, parse_group, run_recall
    from hermes_edge.recall.tables import render

    # Before hours of work, what could not be written afterwards.
    if plot is not None:
        check_plot(plot)
    for path in (json_file, plot):
        if path is not None and not path.parent.is_dir():
            raise StorageError(f"cannot write {path}", found=f"no such folder {path.parent}")
    defaults = RecallSettings(bundle)
    settings = RecallSettings(
        bundle=bundle,
        split=split,
        seed=seed,
        policies=tuple(policy) if policy else defaults.policies,
        budget_shares=tuple(percent / 100 for percent in budget)
        if budget
        else defaults.budget_shares,
        groups=tuple(map(parse_group, streams)) if streams else defaults.groups,
        threads=threads,
        jobs=jobs,
    )
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def progress(done: int, films: int, stage: str) -> None:
            bar.update(task, completed=done, total=films, description=stage)
            # A bar in a file would show at its end alone, after what may be hours.
            if not console.is_terminal and done % _TELL_EVERY == 0:
                typer.echo(f"{done} of {films} streams", err=True)

        result = run_recall(settings, progress)
    # Tables are not folded: a line may be longer than the terminal is wide.
    Console(width=160).print(render(result))
    if json_file is not None:
        write_document(json_file, result)
    if plot is not None:
        write_plot(plot, result)
