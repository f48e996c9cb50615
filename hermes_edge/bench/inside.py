"""What the benchmark needs of a session beyond its public surface, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hermes_edge.bench.figures import ReplayFigures
from hermes_edge.engines.trt.engine import TensorRTEngine
from hermes_edge.engines.views import Array
from hermes_edge.runtime import Runtime, Session


@dataclass(frozen=True, slots=True)
class CachedLayer:
    """A layer's committed rows on the host: keys and values [S, Hkv, D]."""

    keys: Array
    values: Array


def never_ending(session: Session) -> Session:
    """The same session, whose answers always have ``max_new_tokens`` tokens."""
    return Session(replace(session._parts, eos_token_ids=()))


def cached_layers(session: Session) -> list[CachedLayer]:
    """Every layer's committed keys and values, valid until the session is fed again."""
    store, download = session._parts.store, session._parts.runner.download
    views = [store.committed(layer) for layer in range(len(store.rows))]
    return [CachedLayer(download(keys), download(values)) for keys, values in views]


def replayed(runtime: Runtime) -> ReplayFigures | None:
    """How the decoder's steps were taken; None where nothing replays them."""
    engine = runtime._factory.engine("decoder")
    replay = engine.replay if isinstance(engine, TensorRTEngine) else None
    if replay is None:
        return None
    return ReplayFigures(replay.plain_runs, replay.captures, replay.launches)


def first_logits(session: Session, question_ids: Sequence[int]) -> Array:
    """Logits float32 [V] behind a question's last token; the memory stays as it is."""
    parts = session._parts
    logits, _ = parts.runner.run(parts.store, (parts.table.lookup(question_ids),), want_logits=True)
    return np.asarray(logits)
