"""Bundles that several test folders share, and the reason why tests of a GPU are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_edge.engines.backends import open_backend
from hermes_edge.engines.bundle import Bundle
from hermes_edge.errors import HermesEdgeError

RANDOM_BUNDLE = Path(__file__).parent / "random-bundle"


@pytest.fixture(scope="session")
def random_bundle() -> Path:
    """A small bundle of random weights, norms too: 10 layers, E 64, 16 tokens a frame."""
    return RANDOM_BUNDLE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` run where ONNX Runtime computes on a GPU, and say why elsewhere."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    try:
        backend = open_backend("cuda:0", "onnxruntime")
        backend.engine(Bundle.open(RANDOM_BUNDLE), "compact")
    except HermesEdgeError as error:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=str(error)))
