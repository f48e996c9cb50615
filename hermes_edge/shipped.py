"""What ships inside the package, so that everything can be tried without a download."""

from __future__ import annotations

from pathlib import Path

_ASSETS = Path(__file__).parent / "assets"

TINY_BUNDLE = _ASSETS / "hermes-tiny"
"""The bundle of hermes-tiny: trained, fp32."""

TINY_CHECKPOINT = _ASSETS / "hermes-tiny-checkpoint"
"""What it was exported from, in transformers' format."""

DEMO_VIDEO = _ASSETS / "demo.avi"
DEMO_SEED, DEMO_FRAMES = 1_100_900_000, 192
"""The video is this synthetic stream, one frame a second."""
