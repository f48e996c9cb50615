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
                "budgets": [
                    {**asdict(spec), **_slab_sizes(manifest, spec)} for spec in budgets
                ],
            }
        )
        return
    _print_geometry(bundle, manifest)
    _print_graphs(manifest)
    table(
        "memory (16 MiB of text and reserve included)",
        (),
        (),
    )


def budget_specs(manifest: Manifest) -> list[MemorySpec]:
    """Memories of the usual budgets, as far as the model's positions allow, prefix left out."""
    chunk_rows = manifest.chunk_frames * manifest.tokens_per_frame
    reserve_rows = int(Settings.model_fields["reserve_tokens"].default)
    most = manifest.decoder.max_positions - chunk_rows - reserve_rows
    return [
        MemorySpec(0, budget, chunk_rows, reserve_rows)
        for budget in BUDGETS_TOKENS
        if chunk_rows <= budget <= most
    ]


def _slab_sizes(manifest: Manifest, spec: MemorySpec) -> dict[str, int]:
    decoder, precision = manifest.decoder, manifest.precision
    return {
        "slab_bytes": spec.slab_bytes(decoder, precision),
        "spare_bytes": spec.spare_bytes(decoder, precision),
    }
