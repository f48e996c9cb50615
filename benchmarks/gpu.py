"""One visit to a GPU: check, then time, then one JSON document as the last line.

    python benchmarks/gpu.py --device cuda:0 --geometry llava-onevision-0.5b --json FILE
    python benchmarks/gpu.py --device cpu --geometry tiny --frames 16 --frames 64     any machine

For each geometry a checkpoint with random weights is made on the device and exported in fp16
(or --precision bf16); then, on the device, in ONNX Runtime:

  parity   the small model in the box, in fp32: a stream's memory and answers against the CPU's
  flat     bytes of the device after 16, 256 and 4,096 frames of one session
  bench    what ``hermes-edge bench`` measures, floors from rates measured on the device, and
           transformers with a DynamicCache in turns
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer

from hermes_edge.bench.machine import resident_bytes
from hermes_edge.bench.run import BenchSettings, run_bench
from hermes_edge.bench.stream import TokenStream, open_session
from hermes_edge.errors import HermesEdgeError, StorageError
from hermes_edge.export import export_checkpoint, make_random_checkpoint
from hermes_edge.runtime import Runtime, SamplingParams
from hermes_edge.shipped import TINY_BUNDLE
from hermes_edge.spec import Precision
from hermes_edge.synthetic import SPLITS, draw_stream, make_stream

CHUNK_FRAMES = 8
RESERVE_TOKENS = 512


class Form(str, Enum):
    """Precision of what is measured."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


@dataclass(frozen=True, slots=True)
class Wish:
    """Where to run, and what to measure there."""

    device: str
    rows: list[int]
    frames: list[int]
    repeats: int


def main(
    device: Annotated[str, typer.Option(help="cuda:0, or cpu to try the script.")] = "cuda:0",
    geometry: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    rows: Annotated[list[int] | None, typer.Option(help="Cached rows when asked.")] = None,
    frames: Annotated[list[int] | None, typer.Option(help="When to count bytes.")] = None,
    precision: Annotated[Form, typer.Option(help="Of the export.")] = Form.FP16,
    repeats: Annotated[int, typer.Option(help="Of questions.")] = 7,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write it here.")] = None,
) -> None:
    """Check and time DEVICE."""
    try:
        if json_file is not None and not json_file.parent.is_dir():
            raise StorageError(f"cannot write {json_file}", found="no such folder")
        wish = Wish(device, rows or [4000, 6000], frames or [16, 256, 4096], repeats)
        note("parity")
        document: dict[str, Any] = {
            "device": device,
            "parity": parity(device),
            "geometries": {},
        }
        for name in geometry or ["llava-onevision-0.5b", "llava-onevision-7b"]:
            document["geometries"][name] = measure(name, precision.value, wish)
    except HermesEdgeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    text = json.dumps(document)
    if json_file is not None:
        json_file.write_text(text + "\n", encoding="utf-8")
    typer.echo(text)


def parity(device: str) -> dict[str, Any]:
    """The same stream on the CPU and on the device: what is kept, and what is answered."""
    here, there = (remember(Runtime.load(TINY_BUNDLE, device=name)) for name in ("cpu", device))
    kept = [np.array_equal(a, b) for a, b in zip(here[0], there[0], strict=True)]
    return {
        "layers": len(kept),
        "layers_with_equal_positions": sum(kept),
        "answers": len(here[1]),
        "equal_answers": sum(a == b for a, b in zip(here[1], there[1], strict=True)),
    }


def remember(runtime: Runtime) -> tuple[list[np.ndarray[Any, Any]], list[str]]:
    """Positions of every layer, and answers, of one held-out stream."""
    answers = []
    seed = SPLITS["held-out"][0]
    with runtime.session(budget_tokens=256, chunk_frames=4, reserve_tokens=96) as session:
        for index, frame in enumerate(draw_stream(make_stream(seed, 48))):
            session.feed(frame, at=float(index))
            if index % 8 == 7:
                sampling = SamplingParams(max_new_tokens=6)
                answers.append(session.ask("What is it now?", sampling).text)
        return [layer.position for layer in session.rows()], answers


def measure(name: str, form: Precision, wish: Wish) -> dict[str, Any]:
    """One geometry: made, exported, filled and timed."""
    with TemporaryDirectory() as folder:
        checkpoint, bundle = Path(folder) / "checkpoint", Path(folder) / "bundle"
        note(f"{name}: weights")
        # torch knows cuda:0 by the same name.
        make_random_checkpoint(checkpoint, name, precision=form, device=wish.device)
        note(f"{name}: export")
        export_checkpoint(
            checkpoint, bundle, precision=form, chunk_frames=CHUNK_FRAMES, verify=False
        )
        note(f"{name}: bytes by frames seen")
        flat = count_bytes(bundle, wish)
        reports = []
        for rows in wish.rows:
            settings = BenchSettings(
                bundle,
                rows=rows,
                repeats=wish.repeats,
                device=wish.device,
                checkpoint=checkpoint,
            )
            report = run_bench(settings, lambda stage: note(f"{name}: {stage}"))
            reports.append(asdict(report))
    return {"flat": flat, "bench": reports}


def count_bytes(bundle: Path, wish: Wish) -> list[dict[str, int]]:
    """Bytes in use after so many frames of one session; all were there when it was made."""
    runtime = Runtime.load(bundle, device=wish.device)
    session = open_session(
        runtime,
        "hermes",
        budget_tokens=wish.rows[0],
        chunk_frames=CHUNK_FRAMES,
        reserve_tokens=RESERVE_TOKENS,
    )
    stream = TokenStream(runtime)
    counts = []
    for frames in sorted(wish.frames):
        while stream.frames < frames:
            stream.feed(session, min(CHUNK_FRAMES, frames - stream.frames))
        memory = session.memory()
        counts.append(
            {
                "frames": frames,
                "used_bytes": used_bytes(wish.device),
                "slab_bytes": memory.slab_bytes,
                "rows": memory.rows,
            }
        )
    return counts


def used_bytes(device: str) -> int:
    """Of the whole device, whoever uses them; on the CPU, of this process."""
    if device == "cpu":
        return resident_bytes()[0]
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def note(text: str) -> None:
    """To stderr: stdout is for the document."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
