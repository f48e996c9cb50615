"""The command line of the training."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hermes_edge.errors import HermesEdgeError


def train(
    folder: Annotated[Path, typer.Argument(help="Holds state, log and checkpoint.")],
    recipe: Annotated[str, typer.Option(help="hermes-tiny, or quick to try it out.")] = (
        "hermes-tiny"
    ),
    seed: Annotated[int, typer.Option(help="Of weights and streams, 0 to 99.")] = 0,
) -> None:
    """Train hermes-tiny; the same command goes on where an interrupted training stopped."""
    # An error is data: no markup, no colours, and no breaks but the terminal's own.
    console = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    try:
        # Names what is missing, before anything else fails to import it.
        import_module("hermes_edge.export")
        from hermes_edge.training.loop import Training

        training = Training(folder, recipe, seed)
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=training.recipe.steps, completed=training.step)

            def report(step: int, _: int, figures: str) -> None:
                bar.update(task, completed=step, description=figures)

            training.run(report)
    except HermesEdgeError as error:
        console.print(f"error: {error}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
