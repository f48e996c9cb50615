"""The checkpoint that the shipped bundle was exported from."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_edge.export import make_random_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Equal seeds make equal checkpoints, so it need not be shipped."""
    return make_random_checkpoint(tmp_path_factory.mktemp("bench") / "tiny")
