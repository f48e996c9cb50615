"""``hermes-edge inspect``: what a bundle says of itself, and what its memory would take."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hermes_edge.cli.output import print_json, size, stdout, table
from hermes_edge.cli.verify import print_parity
from hermes_edge.manifest import Manifest
from hermes_edge.settings import Settings
from hermes_edge.spec import MemorySpec

BUDGETS_TOKENS = (500, 1000, 2000, 4000, 6000)


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show geometry, graphs, files and parity of a bundle, and the memory that budgets take."""
    from hermes_edge.engines import Bundle

    manifest = Bundle.open(bundle, check_hashes=False).manifest
    budgets = budget_specs(manifest)
    if as_json:
        print_json(
            {
                **json.loads(manifest.to_json()),
                "kv_bytes_per_token": manifest.decoder.kv_bytes_per_token(manifest.precision),
                "budgets": [{**asdict(spec), **_slab_sizes(manifest, spec)} for spec in budgets],
            }
        )
        return
    _print_geometry(bundle, manifest)
    _print_files(manifest)
    table(
        f"memory by budget (with a chunk of {manifest.chunk_frames} frames and the reserve)",
        ("budget", "rows", "slabs", "spare"),
        [
            (
                f"{spec.budget_rows:,}",
                f"{spec.capacity_rows:,}",
                *(size(nbytes) for nbytes in _slab_sizes(manifest, spec).values()),
            )
            for spec in budgets
        ],
    )
    if manifest.parity is not None:
        print_parity(manifest.parity)


def budget_specs(manifest: Manifest) -> list[MemorySpec]:
    """Memories of the usual budgets and the largest one that the positions allow, less prefix."""
    chunk_rows = manifest.chunk_frames * manifest.tokens_per_frame
    reserve_rows = int(Settings.model_fields["reserve_tokens"].default)
    most = manifest.decoder.max_positions - chunk_rows - reserve_rows
    budgets = {min(budget, most) for budget in BUDGETS_TOKENS if budget >= chunk_rows}
    return [
        MemorySpec(0, budget, chunk_rows, reserve_rows)
        for budget in sorted(budgets)
        if budget >= chunk_rows
    ]


def _print_geometry(bundle: Path, manifest: Manifest) -> None:
    decoder, vision = manifest.decoder, manifest.vision
    read = "whole slabs (static)" if manifest.static_decode else "the memory's rows"
    facts = {
        "bundle": f"{bundle}, schema {manifest.schema_version}",
        "model": f"{manifest.model_id} ({manifest.family}, {manifest.precision})",
        "matrices": str(manifest.quantization or manifest.precision),
        "weights": "random: answers are noise" if manifest.random_weights else "trained",
        "decoder": f"{decoder.layers} layers, width {decoder.embedding_width}, "
        f"{decoder.query_heads} query and {decoder.kv_heads} key-value heads of "
        f"{decoder.head_size}, vocabulary {decoder.vocabulary:,}, "
        f"{decoder.max_positions:,} positions",
        "decoding": f"a further token reads {read}",
        "vision": "none"
        if vision is None
        else f"{vision.used_layers} layers, width {vision.width}, "
        f"{vision.image_size}x{vision.image_size} pixels",
        "frame": f"{manifest.tokens_per_frame} tokens, {manifest.chunk_frames} frames a chunk",
        "token": f"{decoder.kv_bytes_per_token(manifest.precision):,} B of keys and values",
        "tools": ", ".join(f"{name} {version}" for name, version in manifest.tools.items()),
    }
    for name, fact in facts.items():
        stdout().print(f"{name:<8} {fact}")


def _print_files(manifest: Manifest) -> None:
    table(
        "graphs",
        ("graph", "file", "opset", "precision", "inputs", "outputs"),
        [
            (
                name,
                graph.file,
                str(graph.opset),
                graph.precision,
                str(len(graph.inputs)),
                str(len(graph.outputs)),
            )
            for name, graph in manifest.graphs.items()
        ],
    )
    table(
        "files",
        ("file", "size", "sha256"),
        [(record.path, size(record.bytes), record.sha256[:16]) for record in manifest.files],
    )


def _slab_sizes(manifest: Manifest, spec: MemorySpec) -> dict[str, int]:
    decoder, precision = manifest.decoder, manifest.precision
    return {
        "slab_bytes": spec.slab_bytes(decoder, precision),
        "spare_bytes": spec.spare_bytes(decoder, precision),
    }
