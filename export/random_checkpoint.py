"""Write a checkpoint with random weights: ``python export/random_checkpoint.py FOLDER``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hermes_edge.errors import HermesEdgeError


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write it.")],
    preset: Annotated[str, typer.Option(help="tiny, or llava-onevision-0.5b or -7b.")] = "tiny",
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
) -> None:
    """Write a complete LLaVA-OneVision checkpoint whose weights are noise."""
    try:
        from hermes_edge.export import make_random_checkpoint

        make_random_checkpoint(folder, preset, seed=seed)
    except HermesEdgeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    typer.echo(folder)


if __name__ == "__main__":
    typer.run(main)
