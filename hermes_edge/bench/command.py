"""``hermes-edge bench``: tables for people, and one JSON document as the last line."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.shipped import TINY_BUNDLE


class Against(str, Enum):
    """What to compare with."""

    TRANSFORMERS = "transformers"


def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle to measure.")] = TINY_BUNDLE,
    rows: Annotated[int, typer.Option(min=0, help="Visual rows to cache; 0: the budget.")] = 0,
    budget: Annotated[int, typer.Option(min=0, help="Budget in tokens; 0: the default.")] = 0,
    chunk_frames: Annotated[
        int, typer.Option(min=0, help="Frames of a chunk; 0: as exported.")
    ] = 0,
    question_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the question.")] = 32,
    answer_tokens: Annotated[int, typer.Option(min=2, help="Tokens of the answer.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Measured questions.")] = 5,
    chunk_repeats: Annotated[int, typer.Option(min=1, help="Measured chunks.")] = 3,
    warmup: Annotated[int, typer.Option(min=0, help="Of each, before them.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: one per core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    backend: Annotated[str, typer.Option(help="onnxruntime or tensorrt.")] = "onnxruntime",
    against: Annotated[
        Against | None, typer.Option(help="Measure in turns with; needs --checkpoint.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint that the bundle was exported from.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the JSON document here.")
    ] = None,
) -> None:
    """Measure every stage beside its floor, with baselines in the same run."""
    if (against is None) != (checkpoint is None):
        raise SettingsError(
            "--against transformers and --checkpoint go together",
            required="both or none",
            found="--checkpoint alone" if against is None else "--against alone",
        )
    if json_file is not None and not json_file.parent.is_dir():
        raise StorageError(f"cannot write {json_file}", found=f"no such folder {json_file.parent}")
    # Here, so that the other verbs start without the runtime.
    from hermes_edge.bench.run import BenchSettings, run_bench
    from hermes_edge.bench.tables import render

    settings = BenchSettings(
        bundle=bundle,
        rows=rows,
        budget=budget,
        chunk_frames=chunk_frames,
        question_tokens=question_tokens,
        answer_tokens=answer_tokens,
        repeats=repeats,
        chunk_repeats=chunk_repeats,
        warmup=warmup,
        threads=threads,
        device=device,
        backend=backend,
        checkpoint=checkpoint,
    )
    progress = Console(stderr=True)
    report = run_bench(settings, lambda stage: progress.print(f"[dim]{stage}[/dim]"))
    document = json.dumps(asdict(report))
    Console().print(render(report))
    typer.echo(document)
    if json_file is not None:
        _write(json_file, document)


def _write(path: Path, document: str) -> None:
    try:
        path.write_text(document + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}", found=error.strerror) from None
