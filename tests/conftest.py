"""Bundles that several test folders share; each is exported once per test run."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo_bundle() -> Path:
    """The small bundle that is shipped with the package."""
    return Path(__file__).parents[1] / "hermes_edge" / "assets" / "demo"
