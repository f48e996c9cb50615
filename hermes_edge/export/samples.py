"""Inputs of a parity run, drawn from one seed so that two runs compare the same numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_edge.engines.views import Array
from hermes_edge.manifest import Manifest
from hermes_edge.spec import VisionSpec

FRAMES = 2
PREFIX_TOKENS = 7
QUESTION_TOKENS = 9
GREEDY_TOKENS = 16

_SEED = 20


@dataclass(frozen=True, slots=True)
class Samples:
    """Token ids int64 and pixels uint8 [F, side, side, 3], or rows in place of visual tokens."""

    prefix_ids: Array
    question_ids: Array
    frames: Array | None
    visual_tokens: Array | None

    @classmethod
    def of(cls, manifest: Manifest) -> Samples:
        """Samples for a model; one without a vision tower gets noise [F*N, E] to see."""
        generator = np.random.default_rng(_SEED)
        vocabulary = manifest.decoder.vocabulary
        prefix = generator.integers(0, vocabulary, PREFIX_TOKENS)
        question = generator.integers(0, vocabulary, QUESTION_TOKENS)
        if manifest.vision is not None:
            return cls(prefix, question, _pictures(generator, manifest.vision), None)
        shape = (FRAMES * manifest.tokens_per_frame, manifest.decoder.embedding_width)
        noise = generator.normal(0.0, 0.1, shape).astype(np.float32)
        return cls(prefix, question, None, noise)


def _pictures(generator: np.random.Generator, vision: VisionSpec) -> Array:
    """Coarse blocks with fine noise: pixels all over the range, neighbours alike, as in frames."""
    side = vision.image_size
    blocks = generator.integers(0, 256, (FRAMES, 8, 8, 3))
    repeats = -(-side // 8)
    coarse = blocks.repeat(repeats, axis=1).repeat(repeats, axis=2)[:, :side, :side]
    noisy = coarse + generator.integers(-20, 21, coarse.shape)
    pixels: Array = np.ascontiguousarray(noisy.clip(0, 255).astype(np.uint8))
    return pixels
