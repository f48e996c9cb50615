"""``hermes-edge plan``: what a model, a budget and streams would take of a device."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_edge.cli.form import BlockOption, ComputeOption, DType, parse_form
from hermes_edge.cli.output import print_json, size, stdout, table
from hermes_edge.errors import BudgetError, SettingsError
from hermes_edge.quoting import hidden
from hermes_edge.settings import Settings
from hermes_edge.units import parse_budget, parse_bytes

if TYPE_CHECKING:
    from hermes_edge.planning.devices import Device
    from hermes_edge.planning.plan import Plan
    from hermes_edge.planning.subject import Subject

_THIS = "this"


def plan(
    model: Annotated[
        str, typer.Argument(help="Bundle, checkpoint folder, or hub id ORGANISATION/NAME.")
    ],
    device: Annotated[
        str, typer.Option(help="Such as orin-nano-8gb, 8GiB:68GB/s:10TFLOPS, or this.")
    ],
    budget: Annotated[
        str | None,
        typer.Option(
            help="Tokens a layer, or 64MiB, 0.5GiB.",
            show_default="4000, or what the model's positions allow",
        ),
    ] = None,
    streams: Annotated[int, typer.Option(help="Streams at once.")] = 1,
    fps: Annotated[float, typer.Option(help="Frames per second of each stream.")] = 0.5,
    dtype: Annotated[
        DType | None, typer.Option(help="Of the export to come.", show_default="fp16")
    ] = None,
    compute: ComputeOption = None,
    block: BlockOption = None,
    chunk_frames: Annotated[int | None, typer.Option(help="Frames encoded at once.")] = None,
    reserve_tokens: Annotated[
        int, typer.Option(help="Rows kept free for a question and its answer.")
    ] = int(Settings.model_fields["reserve_tokens"].default),
    slice_workspace: Annotated[
        str, typer.Option(help="For the attention of one pass; more means fewer passes.")
    ] = "64MiB",
    tokens_per_frame: Annotated[
        int | None, typer.Option(help="Of a checkpoint without vision tower.")
    ] = None,
    frame_size: Annotated[str, typer.Option(help="Of the camera.")] = "1920x1080",
    reserve: Annotated[
        str | None, typer.Option(help="Memory that is never ours, such as 1.5GiB.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Add up memory and least times on DEVICE; exit code 7 where it does not fit."""
    from hermes_edge.planning.plan import Wish, make_plan
    from hermes_edge.planning.subject import open_subject

    precision, quantization = None, None
    if (dtype, compute, block) != (None, None, None):
        precision, quantization = parse_form(dtype or DType.FP16, compute, block)
    subject = open_subject(model, precision, tokens_per_frame, quantization)
    width, height = _frame_size(frame_size)
    chunk = subject.frames.chunk if chunk_frames is None else chunk_frames
    wish = Wish(
        budget_tokens=_budget_tokens(budget, subject, chunk, reserve_tokens),
        chunk_frames=chunk,
        reserve_tokens=reserve_tokens,
        streams=streams,
        fps=fps,
        frame_width=width,
        frame_height=height,
        slice_workspace_bytes=parse_bytes(slice_workspace, "--slice-workspace"),
    )
    if device == _THIS and subject.precision == "bf16":
        raise SettingsError(
            "ONNX Runtime cannot compute in bf16 on this machine's processor",
            required="fp32 or fp16, or --device of a GPU",
            found="bf16",
        )
    made = make_plan(subject, _device(device, reserve), wish)
    if as_json:
        print_json(_document(made))
    else:
        _print(made)
    if not made.fits:
        raise BudgetError(
            f"{subject.name} does not fit {made.device.name}",
            required=f"{size(made.needed_bytes)} and {made.load:.0%} of its time",
            found=f"{size(made.device.memory_bytes)}",
            fix=f"Turn: {_knobs(made)}",
        )


def _device(name: str, reserve: str | None) -> Device:
    from dataclasses import replace

    from hermes_edge.planning.devices import find_device
    from hermes_edge.planning.measured import measured_device

    device = measured_device() if name == _THIS else find_device(name)
    if reserve is None:
        return device
    return replace(device, reserve_bytes=parse_bytes(reserve, "--reserve", zero=True))


def _budget_tokens(text: str | None, subject: Subject, chunk: int, reserve: int) -> int:
    if text is None:
        from hermes_edge.runtime.limits import default_budget, most_budget

        rows = (subject.prefix_tokens, chunk * subject.frames.tokens, reserve)
        return default_budget(most_budget(subject.decoder, *rows))
    budget = parse_budget(text)
    if budget.tokens is not None:
        return budget.tokens
    return (budget.nbytes or 0) // subject.decoder.kv_bytes_per_token(subject.precision)


def _frame_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None:
        raise SettingsError(
            "unknown --frame-size", required="such as 1920x1080", found=hidden(text)
        )
    return int(match[1]), int(match[2])


def _knobs(made: Plan) -> str:
    from hermes_edge.planning.knobs import memory_knobs, time_knob

    memory = ", or ".join(memory_knobs(made))
    return "; and ".join(part for part in (memory, time_knob(made)) if part)


def _document(made: Plan) -> dict[str, object]:
    from hermes_edge.planning.knobs import memory_knobs, time_knob

    return {
        "model": made.subject.name,
        "precision": made.subject.precision,
        "quantization": str(made.subject.quantization) if made.subject.quantization else None,
        "prefix": {
            "tokens": made.subject.prefix_tokens,
            "assumed": made.subject.prefix_assumed,
        },
        "device": asdict(made.device),
        "wish": asdict(made.wish),
        "bytes": {share.name: share.nbytes for share in made.shares},
        "needed_bytes": made.needed_bytes,
        "left_bytes": made.left_bytes,
        "floor_ms": {stage.name: stage.floor.ms for stage in made.stages},
        "load": made.load,
        "fits": made.fits,
        "knobs": {"memory": list(memory_knobs(made)), "time": time_knob(made)},
    }


def _print(made: Plan) -> None:
    device, wish = made.device, made.wish
    stdout().print(
        f"{made.subject.name} ({made.subject.form}) on {device.name}: "
        f"{size(device.memory_bytes)}, {device.gbyte_per_s:g} GB/s, "
        f"{device.tflop_per_s:.3g} TFLOP/s"
    )
    table(
        f"memory, budget {wish.budget_tokens:,} tokens a layer",
        ("share", "bytes", ""),
        [
            *((share.name, size(share.nbytes), share.why) for share in made.shares),
            ("needed", size(made.needed_bytes), ""),
            ("left", size(made.left_bytes) if made.left_bytes >= 0 else "none", ""),
        ],
    )
    table(
        "least time, at the device's peak",
        ("stage", "ms", "set by"),
        [(stage.name, f"{stage.floor.ms:,.1f}", stage.floor.kind) for stage in made.stages],
    )
    stdout().print(
        f"\n{wish.streams} x {wish.fps:g} frames a second take {made.load:.1%} of the device's "
        "time at best."
    )
    stdout().print(
        f"The embedding table ({size(made.subject.table_bytes)}) is read row by row from its file."
    )
    if made.subject.prefix_assumed:
        stdout().print(
            f"No tokenizer is there to tell the prefix: {made.subject.prefix_tokens} rows, assumed."
        )
    if made.fits:
        stdout().print("It fits.", style="green")
