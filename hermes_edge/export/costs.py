"""What rounded weights cost: a bundle beside the original with its weights as they were."""

from __future__ import annotations

import numpy as np

from hermes_edge.engines import Bundle
from hermes_edge.engines.views import Array
from hermes_edge.export.calls import Caches
from hermes_edge.export.checks import follow_greedy
from hermes_edge.export.reference import Reference
from hermes_edge.manifest import ParityCost


def measure_costs(bundle: Bundle, original: Reference) -> tuple[ParityCost, ...]:
    """Logits, and the greedy answer told token by token, against the original's own."""
    caches = Caches(bundle.engine("decoder"), bundle.manifest.decoder)
    rows = original.inputs_embeds
    question = range(len(rows) - len(original.logits), len(rows))
    whole = caches.run(rows, logit_rows=question)
    answer = follow_greedy(bundle, caches, whole, original)
    same = int((answer.argmax(axis=1) == original.greedy_ids).sum())
    return (
        ParityCost(
            name="logits, root mean square error",
            measured=_error(np.concatenate((whole.logits, answer)), original),
            unit="of their deviation",
        ),
        ParityCost(
            name="greedy tokens that stay the same",
            measured=same,
            unit=f"of {len(original.greedy_ids)}",
        ),
    )


def _error(found: Array, original: Reference) -> float:
    required = np.concatenate((original.logits, original.greedy_logits)).astype(np.float64)
    return float(np.sqrt(np.square(found - required).mean()) / required.std())
