"""A stream without a camera: seeded noise that looks like embeddings to the decoder."""

from __future__ import annotations

import numpy as np

from hermes_edge.engines import EmbeddingTable
from hermes_edge.engines.views import Array
from hermes_edge.runtime import ProbeTokens, Runtime, Session

_SAMPLED_ROWS = 256
_PREFIX_TOKENS = 13
_PROBE_TOKENS = 24


class TokenStream:
    """Visual tokens of one stream; equal seeds give equal streams. One frame a second."""

    def __init__(self, runtime: Runtime, seed: int = 0) -> None:
        manifest = runtime.manifest
        self._random = np.random.default_rng(seed)
        self.tokens_per_frame = manifest.tokens_per_frame
        self._width = manifest.decoder.embedding_width
        table = runtime.bundle.embeddings()
        self._mean, self._deviation = _moments(table, manifest.decoder.vocabulary)
        self.frames = 0

    def feed(self, session: Session, frames: int) -> None:
        """Give a session the next ``frames`` frames."""
        shape = (frames * self.tokens_per_frame, self._width)
        noise = self._random.standard_normal(shape, dtype=np.float32)
        times = range(self.frames, self.frames + frames)
        session.feed_tokens(noise * self._deviation + self._mean, [float(at) for at in times])
        self.frames += frames


def random_ids(runtime: Runtime, count: int, seed: int = 0) -> list[int]:
    """Token ids of a text that means nothing."""
    vocabulary = runtime.manifest.decoder.vocabulary
    ids: list[int] = np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
    return ids


def open_session(
    runtime: Runtime,
    policy: str,
    *,
    budget_tokens: int | None,
    chunk_frames: int | None,
    reserve_tokens: int,
) -> Session:
    """A session with the bundle's own texts, or with random ids where it has no tokenizer.

    Raises:
        BudgetError: the memory does not fit the model's positions.
    """
    has_text = runtime.codec is not None
    probe = tuple(random_ids(runtime, _PROBE_TOKENS))
    return runtime.session(
        policy=policy,
        budget_tokens=budget_tokens,
        chunk_frames=chunk_frames,
        reserve_tokens=reserve_tokens,
        prefix_ids=None if has_text else random_ids(runtime, _PREFIX_TOKENS),
        probes=None if has_text else lambda history: ProbeTokens(probe, probe),
    )


def _moments(table: EmbeddingTable, vocabulary: int) -> tuple[np.float32, np.float32]:
    sample: Array = table.lookup(
        np.linspace(0, vocabulary - 1, _SAMPLED_ROWS).astype(np.int64).tolist()
    ).astype(np.float32)
    return np.float32(sample.mean()), np.float32(sample.std())
