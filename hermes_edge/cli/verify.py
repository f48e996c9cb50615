"""``hermes-edge verify``: is a bundle what it says, and does it compute what it should?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hermes_edge.cli.output import print_json, stdout, table
from hermes_edge.cli.progress import ExportProgress
from hermes_edge.errors import BundleError, SettingsError
from hermes_edge.manifest import ParityReport

_OTHERWISE = "Export with another --opset, name a newer target, or run it in ONNX Runtime"


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="Also compare with this checkpoint's own model."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Check the graphs by TensorRT's rules instead: tensorrt, or tensorrt=10.16.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check hashes, tensors and results of a bundle, with or without its checkpoint."""
    if target is not None:
        if against is not None:
            raise SettingsError("two checks", required="--against or --target", found="both")
        _lint(bundle, target, as_json)
        return
    from hermes_edge.export import verify_bundle

    with ExportProgress() as progress:
        report = verify_bundle(bundle, against, progress)
    if as_json:
        print_json({"bundle": str(bundle), "passed": report.passed, **report.model_dump()})
    else:
        print_parity(report)


def _lint(bundle: Path, target: str, as_json: bool) -> None:
    from hermes_edge.export.lint import lint_bundle, parse_target

    version = parse_target(target)
    findings = lint_bundle(bundle, version)
    name = f"TensorRT {version[0]}.{version[1]}"
    if as_json:
        print_json(
            {"bundle": str(bundle), "target": name, "findings": [asdict(f) for f in findings]}
        )
    elif findings:
        rows = [(finding.graph, finding.node, finding.rule) for finding in findings]
        table(f"what {name} would refuse", ("graph", "node", "rule"), rows)
    else:
        stdout().print(f"{bundle}: nothing that {name} is known to refuse")
    if findings:
        raise BundleError(
            f"{bundle} does not suit {name}", found=f"{len(findings)} findings", fix=_OTHERWISE
        )


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
    if report.costs:
        table(
            "cost of the rounded weights, beside the original",
            ("what", "measured", "unit"),
            [(cost.name, f"{cost.measured:.3g}", cost.unit) for cost in report.costs],
        )
