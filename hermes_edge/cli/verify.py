"""``hermes-edge verify``: is a bundle what it says, and does it compute what it should?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hermes_edge.cli.output import print_json, table
from hermes_edge.cli.progress import ExportProgress
from hermes_edge.manifest import ParityReport


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="Also compare with this checkpoint's own model."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check hashes, tensors and results of a bundle, with or without its checkpoint."""
    from hermes_edge.export import verify_bundle

    with ExportProgress() as progress:
        report = verify_bundle(bundle, against, progress)
    if as_json:
        print_json({"bundle": str(bundle), "passed": report.passed, **report.model_dump()})
    else:
        print_parity(report)


def print_parity(report: ParityReport) -> None:
    """The report as a table."""
    table(
        f"parity with {report.reference}",
        ("check", "measured", "tolerance", "unit", ""),
        [
            (
                check.name,
                f"{check.measured:.3g}",
                f"{check.tolerance:.3g}",
                check.unit,
                "pass" if check.passed else "FAIL",
            )
            for check in report.checks
        ],
    )
