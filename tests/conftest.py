"""Bundles that several test folders share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def random_bundle() -> Path:
    """A small bundle of random weights, norms too: 10 layers, E 64, 16 tokens a frame."""
    return Path(__file__).parent / "random-bundle"
