"""``hermes-edge export``: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hermes_edge.cli.form import BlockOption, ComputeOption, DType, parse_form
from hermes_edge.cli.output import size, stdout
from hermes_edge.cli.progress import ExportProgress


def export(
    checkpoint: Annotated[
        str, typer.Argument(help="Folder of the checkpoint, or hub id ORGANISATION/NAME.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    dtype: Annotated[
        DType, typer.Option(help="Of the weights; int8 and int4: of the decoder's matrices.")
    ] = DType.FP32,
    compute: ComputeOption = None,
    block: BlockOption = None,
    chunk_frames: Annotated[int, typer.Option(help="Frames that are encoded at once.")] = 16,
    opset: Annotated[
        int, typer.Option(help="ONNX opset, 20 or 23; a decoder in int4 has 21 at least.")
    ] = 20,
    tokens_per_frame: Annotated[
        int | None, typer.Option(help="Needed where the checkpoint has no vision tower.")
    ] = None,
    embedding_probe: Annotated[
        bool, typer.Option("--embedding-probe", help="Also write the released code's probe graph.")
    ] = False,
    static_decode: Annotated[
        bool,
        typer.Option(
            "--static-decode",
            help="A decoder for whole slabs: TensorRT then replays further tokens as a CUDA graph.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle of that name.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare with the original model.")
    ] = True,
) -> None:
    """Export a Hugging Face checkpoint to a bundle of ONNX graphs, checked against the original."""
    from hermes_edge.export import export_checkpoint

    precision, quantization = parse_form(dtype, compute, block)
    with ExportProgress() as progress:
        manifest = export_checkpoint(
            checkpoint,
            output,
            precision=precision,
            quantization=quantization,
            chunk_frames=chunk_frames,
            opset=opset,
            tokens_per_frame=tokens_per_frame,
            embedding_probe=embedding_probe,
            static_decode=static_decode,
            overwrite=overwrite,
            verify=verify,
            progress=progress,
        )
    total = sum(record.bytes for record in manifest.files)
    stdout().print(f"{manifest.model_id} -> {output} ({size(total)})")
    for cost in manifest.parity.costs if manifest.parity is not None else ():
        stdout().print(
            f"{quantization or precision} costs: {cost.name}: {cost.measured:.3g} {cost.unit}"
        )
