"""The verbs put together. What a verb needs is imported when it runs."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from hermes_edge import __version__
from hermes_edge.bench.command import bench
from hermes_edge.cli import build, demo, doctor, export, inspect, plan, run, snapshot, verify
from hermes_edge.cli.group import VerbGroup
from hermes_edge.recall.command import recall

# A question may not be text, and an answer may hold characters that the terminal's encoding lacks.
_STANDARD_STREAMS = (
    ("stdin", "r", "surrogateescape"),
    ("stdout", "w", "backslashreplace"),
    ("stderr", "w", "backslashreplace"),
)

app = typer.Typer(
    cls=VerbGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hermes-edge {__version__}")
        raise typer.Exit


@app.callback()
def _hermes_edge(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Answers questions about an endless video stream from a KV memory of constant size."""


for verb in (
    export.export,
    verify.verify,
    inspect.inspect,
    plan.plan,
    build.build,
    run.run,
    demo.demo,
    bench,
    recall,
    doctor.doctor,
):
    app.command()(verb)
app.add_typer(snapshot.app, name="snapshot")


def run_app() -> None:
    """Run the command line on the arguments of this process, and exit."""
    for name, mode, errors in _STANDARD_STREAMS:
        if getattr(sys, name) is None:
            # Closed: the next file that is opened would take its number, and what is written to it.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    app(prog_name="hermes-edge")
