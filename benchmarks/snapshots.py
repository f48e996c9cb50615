"""What a save costs the stream, on any bundle: pause, file, compaction meanwhile, restore.

    python benchmarks/snapshots.py BUNDLE --budget 6000

Noise fills the budget. Then, as medians of ``--repeats``: a further token of an answer, to compare
with; saves; the compaction of a chunk alone, and one that has to copy all rows because none has
been read yet; and restores, probe included. The last line is one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from hermes_edge.errors import HermesEdgeError
from hermes_edge.runtime import Runtime, SamplingParams, Session
from hermes_edge.runtime.chunks import StageTimes


def fill(session: Session, runtime: Runtime, random: np.random.Generator) -> None:
    """A memory of noise, up to its budget; a stream of that length would take minutes."""
    store, budget = session._parts.store, session._parts.store.spec.budget_rows
    rows = store.spec.prefix_rows + budget
    for layer in range(len(store.rows)):
        for slab in store.slab(layer):
            noise = random.standard_normal((rows, *slab.shape[1:]), dtype=np.float32)
            store.device.upload(noise.astype(slab.dtype), slab.rows(0, rows))
    frames = np.arange(budget, dtype=np.int64) // runtime.manifest.tokens_per_frame
    seen = int(frames[-1]) + 1
    store.commit(frames, frames.astype(np.float64))
    times = StageTimes(frames=seen, chunks=seen)
    session._parts.encoder.resume(0, times, float(seen))
    session._feeder.newest_s = float(seen)


def feed(session: Session, runtime: Runtime, random: np.random.Generator) -> None:
    """A frame of noise."""
    manifest = runtime.manifest
    shape = (manifest.tokens_per_frame, manifest.decoder.embedding_width)
    at = session.memory().newest_s + 1.0
    session.feed_tokens(random.standard_normal(shape, dtype=np.float32), at)


def compaction_ms(
    session: Session, runtime: Runtime, random: np.random.Generator, *, frozen: bool
) -> float:
    """Of a chunk of one frame, while a save has read everything, or nothing yet."""
    before = session.timings().compact_ms
    with session._parts.store.freeze() if frozen else nullcontext():
        feed(session, runtime, random)
        session.flush()
    return session.timings().compact_ms - before


def measure(bundle: Path, budget: int, repeats: int, threads: int) -> dict[str, float]:
    """All figures."""
    runtime = Runtime.load(bundle, threads=threads, check_hashes=False)
    session = runtime.session(budget_tokens=budget)
    random = np.random.default_rng(0)
    fill(session, runtime, random)
    token_ms = session.ask([5], SamplingParams(max_new_tokens=1 + repeats)).per_token_ms
    with TemporaryDirectory() as folder:
        path = Path(folder) / "one.safetensors"
        saves = [session.save(path) for _ in range(repeats)]
        alone, copying = (
            median(compaction_ms(session, runtime, random, frozen=f) for _ in range(repeats))
            for f in (False, True)
        )
        session.save(path)
        restores = []
        for _ in range(repeats):
            began = time.perf_counter()
            runtime.restore(path)
            restores.append((time.perf_counter() - began) * 1e3)
    return {
        "rows": session.memory().rows,
        "file_bytes": saves[0].nbytes,
        "slab_bytes": session.memory().slab_bytes,
        "token_ms": token_ms,
        "pause_ms": median(saved.pause_ms for saved in saves),
        "longest_pause_ms": max(saved.pause_ms for saved in saves),
        "total_ms": median(saved.total_ms for saved in saves),
        "compaction_ms": alone,
        "compaction_copying_ms": copying,
        "restore_ms": median(restores),
    }


def main(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    budget: Annotated[int, typer.Option(help="Tokens a layer.")] = 6000,
    repeats: Annotated[int, typer.Option(help="Measurements of each figure.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="0 is one per core.", min=0)] = 0,
) -> None:
    """Measure saves and restores of a memory that is full."""
    try:
        figures = measure(bundle, budget, repeats, threads)
    except HermesEdgeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    for name, figure in figures.items():
        typer.echo(f"{name:<22} {figure:,.1f}")
    typer.echo(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
