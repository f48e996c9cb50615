"""A bundle in bf16 on a GPU, graph by graph, beside its widened graphs on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_edge.engines import Bundle
from hermes_edge.engines.backends import open_backend
from hermes_edge.engines.precision import compare_with_cpu, require_parity
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.export import export_checkpoint
from hermes_edge.export.widened import WidenedBundle
from hermes_edge.shipped import TINY_CHECKPOINT

pytestmark = pytest.mark.gpu


def test_every_graph_computes_what_the_processor_does(tmp_path: Path) -> None:
    export_checkpoint(TINY_CHECKPOINT, tmp_path / "bundle", precision="bf16", verify=False)
    bundle = Bundle.open(tmp_path / "bundle")
    backend, reference = open_backend("cuda:0", "onnxruntime"), WidenedBundle(bundle, rounded=True)
    limits = Limits(capacity_rows=300, pass_rows=64, probe_rows=32, frames=2)
    require_parity(
        [
            compare_with_cpu(
                bundle,
                name,
                limits,
                backend.device,
                lambda wanted: backend.engine(bundle, wanted),
                reference,
            )
            for name in bundle.manifest.graphs
        ]
    )
