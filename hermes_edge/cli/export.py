"""``hermes-edge export``: a checkpoint becomes a bundle."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hermes_edge.cli.output import size, stdout
from hermes_edge.cli.progress import ExportProgress
from hermes_edge.spec import Precision


class DType(str, Enum):
    """Precision of weights, caches and embeddings."""

    FP32 = "fp32"
    FP16 = "fp16"


def export(
    checkpoint: Annotated[
        str, typer.Argument(help="Folder of the checkpoint, or hub id ORGANISATION/NAME.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    dtype: Annotated[DType, typer.Option(help="Precision of weights and caches.")] = DType.FP32,
    chunk_frames: Annotated[int, typer.Option(help="Frames that are encoded at once.")] = 16,
    opset: Annotated[int, typer.Option(help="ONNX opset, 20 or 23.")] = 20,
    tokens_per_frame: Annotated[
        int | None, typer.Option(help="Needed where the checkpoint has no vision tower.")
    ] = None,
    embedding_probe: Annotated[
        bool, typer.Option("--embedding-probe", help="Also write the released code's probe graph.")
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

    precision: Precision = "fp16" if dtype is DType.FP16 else "fp32"
    with ExportProgress() as progress:
        manifest = export_checkpoint(
            checkpoint,
            output,
            precision=precision,
            chunk_frames=chunk_frames,
            opset=opset,
            tokens_per_frame=tokens_per_frame,
            embedding_probe=embedding_probe,
            overwrite=overwrite,
            verify=verify,
            progress=progress,
        )
    total = sum(record.bytes for record in manifest.files)
    stdout().print(f"{manifest.model_id} -> {output} ({size(total)})")
