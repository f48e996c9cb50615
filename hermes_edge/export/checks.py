"""The comparisons of a parity run: each measures one difference and names what it may be.

All but the greedy check measure the largest absolute difference, divided by the largest magnitude
of what is compared with.
"""

from __future__ import annotations

import numpy as np

from hermes_edge.engines import Bundle, Engine
from hermes_edge.engines.views import Array
from hermes_edge.export import arithmetic
from hermes_edge.export.calls import Caches, Pass, call
from hermes_edge.export.reference import Reference
from hermes_edge.export.samples import FRAMES, PREFIX_TOKENS, Samples
from hermes_edge.manifest import TOLERANCES, ParityCheck
from hermes_edge.spec import PRECISION_DTYPE, Precision

# Of noise, behind every layer's own rows.
_UNSEEN_ROWS = 5


class Checks:
    """Collects comparisons under one precision's tolerances."""

    def __init__(self, precision: Precision) -> None:
        self._tolerances = TOLERANCES[precision]
        self.done: list[ParityCheck] = []

    def compare(self, name: str, kind: str, found: Array, required: Array) -> None:
        """Record the largest difference of ``found`` to ``required``."""
        wide = required.astype(np.float64)
        difference = float(np.abs(found.astype(np.float64) - wide).max())
        self.add(name, difference / max(float(np.abs(wide).max()), 1e-30), self._tolerances[kind])

    def add(
        self, name: str, measured: float, tolerance: float, unit: str = "of the maximum"
    ) -> None:
        """Record one measurement."""
        check = ParityCheck(name=name, measured=measured, tolerance=tolerance, unit=unit)
        self.done.append(check)

    def greedy(self, found: Array, required: Array) -> None:
        """Count tokens that a greedy choice from ``found`` [n, V] makes differently.

        Where the original's own two candidates lie closer together than the logits may differ, it
        is a tie that no tolerance could settle, and either choice passes.
        """
        picked = required[np.arange(len(required)), found.argmax(axis=1)]
        margin = 2 * self._tolerances["original"] * np.abs(required).max()
        wrong = int((required.max(axis=1) - picked > margin).sum())
        wrong += int((~np.isfinite(found).all(axis=1)).sum())
        self.add("greedy answer", wrong, 0, "tokens")


def check_vision(bundle: Bundle, samples: Samples, reference: Reference | None, to: Checks) -> None:
    """Visual tokens against the original; frames at once against one by one."""
    engine = bundle.engine("vision")
    frames, tokens = samples.frames, bundle.manifest.tokens_per_frame
    assert frames is not None
    name = "visual_tokens"
    together = call(engine, {"frames": frames}, tokens=len(frames) * tokens)[name]
    last = call(engine, {"frames": frames[-1:]}, tokens=tokens)[name]
    to.compare("visual tokens, frame alone and among others", "itself", last, together[-tokens:])
    if reference is not None and reference.visual_tokens is not None:
        to.compare("visual tokens", "original", together, reference.visual_tokens)


def check_decoder(bundle: Bundle, embeds: Array, reference: Reference | None, to: Checks) -> None:
    """One pass against the original; chunks, single tokens and probes against one pass."""
    # What the processor rounds for speed would hide a wrong weight; it is counted as a cost.
    engine, spec = bundle.engine("decoder", exact=True), bundle.manifest.decoder
    caches = Caches(engine, spec, _UNSEEN_ROWS)
    start = PREFIX_TOKENS + FRAMES * bundle.manifest.tokens_per_frame
    question = range(start, len(embeds))
    whole = caches.run(embeds, logit_rows=question)
    if reference is not None:
        to.compare("keys", "original", whole.keys, reference.keys)
        to.compare("values", "original", whole.values, reference.values)
        to.compare("logits", "original", whole.logits, reference.logits)
        _check_greedy(bundle, caches, whole, reference, to)
    _check_chunks(Caches(engine, spec), bundle, embeds, whole, to)
    _check_probes(Caches(engine, spec), bundle, embeds, to)
    if bundle.manifest.static_decode:
        _check_lengths(bundle, engine, embeds, to)


def _check_greedy(
    bundle: Bundle, caches: Caches, whole: Pass, reference: Reference, to: Checks
) -> None:
    """Follow the original's greedy answer token by token."""
    found = follow_greedy(bundle, caches, whole, reference)
    to.compare("logits of the greedy answer", "original", found, reference.greedy_logits)
    to.greedy(found, reference.greedy_logits)


def follow_greedy(bundle: Bundle, caches: Caches, whole: Pass, reference: Reference) -> Array:
    """Logits [16, V] that the bundle would pick each token of the original's answer from."""
    caches.append(whole)
    logits = [whole.logits[-1]]
    table = bundle.embeddings()
    for token in reference.greedy_ids[:-1]:
        step = caches.run(table.lookup([int(token)]), logit_rows=[0])
        caches.append(step)
        logits.append(step.logits[0])
    return np.stack(logits)


def _check_chunks(caches: Caches, bundle: Bundle, embeds: Array, whole: Pass, to: Checks) -> None:
    tokens = bundle.manifest.tokens_per_frame
    ends = [PREFIX_TOKENS + frame * tokens for frame in range(FRAMES + 1)]
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        caches.append(caches.run(embeds[first:last]))
    question = caches.run(embeds[ends[-1] :], logit_rows=range(len(embeds) - ends[-1]))
    caches.append(question)
    to.compare("keys, chunks and whole", "itself", caches.keys, whole.keys)
    to.compare("values, chunks and whole", "itself", caches.values, whole.values)
    to.compare("logits, chunks and whole", "itself", question.logits, whole.logits)


def _check_probes(caches: Caches, bundle: Bundle, embeds: Array, to: Checks) -> None:
    """Two probes that ride behind a frame in one pass against two passes of their own."""
    tokens = bundle.manifest.tokens_per_frame
    start = PREFIX_TOKENS + tokens
    text = embeds[start + (FRAMES - 1) * tokens :]
    first, second = text[:5], text[5:]
    caches.append(caches.run(embeds[:start]))
    frame = embeds[start : start + tokens]
    follow = start + tokens
    ids = [0] * tokens + [1] * len(first) + [2] * len(second)
    at = [*range(start, follow), *range(follow, follow + len(first))]
    at += range(follow, follow + len(second))
    rows = range(tokens, len(ids))
    riding = np.concatenate((frame, first, second))
    together = caches.run(riding, segments=ids, positions=at, probe_rows=rows)
    alone = caches.run(frame)
    to.compare(
        "keys of a frame, with and without probes", "itself", together.keys[:, :tokens], alone.keys
    )
    caches.append(alone)
    passes = [caches.run(probe, probe_rows=range(len(probe))) for probe in (first, second)]
    queries = np.concatenate([done.queries for done in passes], axis=1)
    keys = np.concatenate([done.keys for done in passes], axis=1)
    to.compare("probe queries, riding and alone", "itself", together.queries, queries)
    to.compare("probe keys, riding and alone", "itself", together.keys[:, tokens:], keys)


def _check_lengths(bundle: Bundle, engine: Engine, embeds: Array, to: Checks) -> None:
    """Layers of unequal length, one of them empty: whole slabs against rows cut to length."""
    spec, rows = bundle.manifest.decoder, len(embeds) - 1
    rising = [rows * layer // spec.layers for layer in range(spec.layers)]
    logits, values = [], []
    for unseen_rows in (_UNSEEN_ROWS, 0):
        caches = Caches(engine, spec, unseen_rows)
        caches.append(caches.run(embeds[:-1]))
        steps = [
            caches.run(embeds[-1:], logit_rows=[0], past_rows=lengths)
            for lengths in (rising, rising[::-1])
        ]
        logits.append(np.stack([step.logits for step in steps]))
        values.append(np.stack([step.values for step in steps]))
    to.compare("logits, layers in slabs and cut to length", "itself", *logits)
    to.compare("values, layers in slabs and cut to length", "itself", *values)


def check_embedding_probe(
    bundle: Bundle, embeds: Array, reference: Reference | None, to: Checks
) -> None:
    """Queries and keys of raw embeddings against the original's layers."""
    if reference is None:
        return
    engine, layers = bundle.engine("embedding_probe"), bundle.manifest.decoder.layers
    rows = embeds[-reference.probe_keys.shape[1] :]
    at = np.broadcast_to(np.arange(len(rows)), (layers, len(rows)))
    found = call(engine, {"inputs_embeds": rows, "position_ids": at})
    required = (reference.probe_queries, reference.probe_keys)
    for name, original in zip(("probe_queries", "probe_keys"), required, strict=True):
        to.compare(f"embedding {name}".replace("_", " "), "original", found[name], original)


def check_score(bundle: Bundle, to: Checks) -> None:
    """Scores against numpy, a probe of two segments."""
    spec, generator = bundle.manifest.decoder, np.random.default_rng(3)
    rows, probes = 50, 6
    segment = np.array([0, 0, 0, 1, 1, 1])
    inputs = {
        "queries": 2 * generator.normal(size=(probes, spec.query_heads, spec.head_size)),
        "keys": generator.normal(size=(rows, spec.kv_heads, spec.head_size)),
        "probe_keys": generator.normal(size=(probes, spec.kv_heads, spec.head_size)),
        "visible": np.tril(segment[:, None] == segment[None, :]),
    }
    inputs = _rounded(bundle, inputs)
    required = arithmetic.score(**inputs)
    to.compare("scores", "arithmetic", call(bundle.engine("score"), inputs)["scores"], required)


def check_compact(bundle: Bundle, to: Checks) -> None:
    """Kept, moved and folded rows against numpy; unmoved rows bit for bit."""
    spec, generator = bundle.manifest.decoder, np.random.default_rng(4)
    shape = (40, spec.kv_heads, spec.head_size)
    delta = -np.arange(20) // 2
    inputs = {
        "keys": generator.normal(size=shape),
        "values": generator.normal(size=shape),
        "keep": np.arange(0, 40, 2),
        "keep_delta": delta,
        "fold": np.arange(1, 40, 3),
        "fold_delta": -np.arange(13) * 50,
        "fold_weight": generator.dirichlet(np.ones(13)),
    }
    inputs = _rounded(bundle, inputs)
    engine = bundle.engine("compact")
    found = call(engine, inputs, kept=21)
    new_keys, new_values = arithmetic.compact(inputs, spec.rope_theta)
    to.compare("compacted keys", "arithmetic", found["new_keys"], new_keys)
    to.compare("compacted values", "arithmetic", found["new_values"], new_values)
    unmoved = found["new_keys"][:-1][delta == 0] != inputs["keys"][inputs["keep"]][delta == 0]
    to.add("keys of unmoved rows that changed", float(unmoved.sum()), 0, "elements")


def _rounded(bundle: Bundle, inputs: dict[str, Array]) -> dict[str, Array]:
    """Floats as the graph will get them, so that only its own error is measured."""
    dtype = np.dtype(PRECISION_DTYPE[bundle.manifest.precision])
    return {
        name: array.astype(dtype) if array.dtype == np.float64 and name != "fold_weight" else array
        for name, array in inputs.items()
    }
