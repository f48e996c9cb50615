"""Engines of a device against the same graphs in ONNX Runtime on the CPU.

Inputs are drawn from one seed and the contract: everything that a stream does to a graph, at
lengths that every profile holds. ONNX Runtime goes first and is closed before the device's engine
is opened, because a board has no room for two copies of the weights.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from hermes_edge.contract import (
    GraphName,
    is_static,
    past_key,
    past_value,
    present_key,
    present_value,
)
from hermes_edge.engines.base import Engine
from hermes_edge.engines.bundle import Bundle
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.engines.views import Array, CpuDevice, Device
from hermes_edge.errors import ParityError
from hermes_edge.manifest import TOLERANCES, Manifest, ParityCheck

_SEED = 21
# Enough for every kind of row; a longest call would take a processor minutes.
_MOST_ROWS = 48
_MOST_PROBE_ROWS = 8
_MOST_FRAMES = 2
# Of a static decoder's single row: run, captured, launched.
_STEPS = 3

# What a graph's results are held to: graphs with weights as against the original model.
_KINDS: dict[GraphName, str] = {
    "vision": "original",
    "decoder": "original",
    "score": "arithmetic",
    "compact": "arithmetic",
    "embedding_probe": "original",
}

Arrays = Mapping[str, Array]
Call = tuple[Arrays, dict[str, Array]]
"""Inputs and outputs by name."""


def compare_with_cpu(
    bundle: Bundle,
    name: GraphName,
    limits: Limits,
    device: Device,
    open_engine: Callable[[GraphName], Engine],
    reference: Bundle | None = None,
) -> ParityCheck:
    """The largest difference of a device's engine to ONNX Runtime on the CPU.

    Args:
        bundle: whose graph is run.
        name: of the graph.
        limits: of the sessions that the engine serves; no call is larger.
        device: that the engine computes on.
        open_engine: of the engine.
        reference: what the CPU computes instead of the bundle, where it cannot: for bf16.

    Returns:
        The difference as a share of an output's largest magnitude, the worst over all outputs of
        all calls, beside the tolerance of the bundle's precision.

    Raises:
        EngineError: either refuses a call.
        DependencyError: ONNX Runtime is not installed.
    """
    calls = list(_reference_calls(reference or bundle, name, limits))
    gc.collect()
    engine = open_engine(name)
    worst = 0.0
    for inputs, required in calls:
        found = _run(engine, device, inputs, bundle.manifest)
        shares = [_difference(found[output], required[output]) for output in required]
        # max() would let a difference that is not a number pass.
        worst = float(np.max([worst, *shares]))
    tolerance = TOLERANCES[bundle.manifest.precision][_KINDS[name]]
    return ParityCheck(name=name, measured=worst, tolerance=tolerance, unit="of the maximum")


def require_parity(checks: Sequence[ParityCheck]) -> None:
    """Refuse engines that differ by more than they may.

    Raises:
        ParityError: some do; all that do are listed.
    """
    faults = [
        f"{check.name}: required at most {check.tolerance:g} {check.unit}, "
        f"found {check.measured:.3g}"
        for check in checks
        if not check.passed
    ]
    if faults:
        raise ParityError(
            f"{len(faults)} of {len(checks)} plans differ from ONNX Runtime on the CPU: "
            f"{'; '.join(faults)}",
            fix="They are not kept; build without --precision-check to keep such plans",
        )


def _reference_calls(bundle: Bundle, name: GraphName, limits: Limits) -> Iterator[Call]:
    engine = bundle.engine(name, exact=True)
    if name == "decoder":
        yield from _decoder_calls(bundle, engine, limits)
        return
    for inputs in _inputs(bundle, name, limits):
        yield inputs, _run(engine, CpuDevice(), inputs, bundle.manifest)


def _inputs(bundle: Bundle, name: GraphName, limits: Limits) -> list[dict[str, Array]]:
    """Calls of a graph that needs no other call's results."""
    spec, generator = bundle.manifest.decoder, np.random.default_rng(_SEED)
    rows = min(_MOST_ROWS, limits.capacity_rows)
    probes = min(_MOST_PROBE_ROWS, limits.probe_rows)
    cached = (rows, spec.kv_heads, spec.head_size)
    if name == "vision":
        shape = bundle.graph(name).inputs[0].axes[1:]
        return [{"frames": _pictures(generator, min(_MOST_FRAMES, limits.frames), int(shape[0]))}]
    if name == "embedding_probe":
        at = np.broadcast_to(np.arange(probes), (spec.layers, probes))
        return [{"inputs_embeds": _embeddings(bundle, generator, probes), "position_ids": at}]
    if name == "score":
        segment = np.arange(probes) >= probes // 2
        return [
            {
                "queries": 2 * generator.normal(size=(probes, spec.query_heads, spec.head_size)),
                "keys": generator.normal(size=cached),
                "probe_keys": generator.normal(size=(probes, *cached[1:])),
                "visible": np.tril(segment[:, None] == segment[None, :]),
            }
        ]
    keep, fold = np.arange(0, rows, 2), np.arange(1, rows, 3)
    folding = {
        "keys": generator.normal(size=cached),
        "values": generator.normal(size=cached),
        "keep": keep,
        "keep_delta": -np.arange(len(keep)) // 2,
        "fold": fold,
        "fold_delta": -np.arange(len(fold)) * 5,
        "fold_weight": generator.dirichlet(np.ones(len(fold))) if len(fold) else np.zeros(0),
    }
    nothing = {key: folding[key][:0] for key in ("fold", "fold_delta", "fold_weight")}
    return [folding, {**folding, **nothing}]


def _decoder_calls(bundle: Bundle, engine: Engine, limits: Limits) -> Iterator[Call]:
    """A first pass without memory, one behind its rows that probes ride, and a single row.

    A static decoder's single row is bound as the runtime binds it: to slabs with rows behind the
    memory that it must not see.
    """
    spec, generator = bundle.manifest.decoder, np.random.default_rng(_SEED)
    rows = min(_MOST_ROWS, limits.pass_rows, limits.capacity_rows)
    probes = min(_MOST_PROBE_ROWS, limits.probe_rows, rows - 1)
    nothing = np.zeros((1, spec.kv_heads, spec.head_size))
    past: dict[str, Array] = {}
    for layer in range(spec.layers):
        past |= {past_key(layer): nothing, past_value(layer): nothing}
    for first, count, riding in ((0, rows, 0), (rows, rows, probes), (rows, 1, 0)):
        text, at = count - riding, first + np.arange(count)
        inputs: dict[str, Array] = {
            "inputs_embeds": _embeddings(bundle, generator, count),
            "position_ids": np.broadcast_to(at, (spec.layers, count)),
            "segment_ids": np.repeat((0, 1), (text, riding)),
            # Rows that a probe rides are encoded, and an encode call computes no logits.
            "logit_rows": np.arange(0 if riding else count - 1, 0 if riding else count),
            "probe_rows": np.arange(text, count),
            "past_visible": np.array([first > 0]),
            "past_rows": np.full(spec.layers, first),
            **past,
        }
        if count == 1 and is_static(engine.graph.inputs):
            unseen = generator.normal(size=(limits.capacity_rows - rows, *nothing.shape[1:]))
            inputs |= {name: np.concatenate((cached, unseen)) for name, cached in past.items()}
        outputs = _run(engine, CpuDevice(), inputs, bundle.manifest)
        yield inputs, outputs
        if first == 0:
            for layer in range(spec.layers):
                past[past_key(layer)] = outputs[present_key(layer)]
                past[past_value(layer)] = outputs[present_value(layer)]


def _run(engine: Engine, device: Device, inputs: Arrays, manifest: Manifest) -> dict[str, Array]:
    """One call with memory of its own."""
    axes: dict[int | str, int] = {}
    given = {}
    for tensor in engine.graph.inputs:
        array = np.ascontiguousarray(inputs[tensor.name], dtype=tensor.dtype)
        axes |= zip(tensor.axes, array.shape, strict=True)
        given[tensor.name] = device.allocate(array.shape, tensor.dtype)
        device.upload(array, given[tensor.name])
    axes["F*N"] = axes.get("F", 0) * manifest.tokens_per_frame
    axes["K+1"] = axes.get("K", 0) + 1
    taken = {
        tensor.name: device.allocate(
            tuple(axis if isinstance(axis, int) else axes[axis] for axis in tensor.axes),
            tensor.dtype,
        )
        for tensor in engine.graph.outputs
    }
    steps = _STEPS if is_static(engine.graph.inputs) and axes["T"] == 1 else 1
    for _ in range(steps):
        for view in taken.values():
            # A call that does nothing shall not be taken for one that repeats its result.
            device.upload(np.zeros(view.shape, view.dtype), view)
        engine.run(given, taken)
    return {name: device.download(view) for name, view in taken.items()}


def _difference(found: Array, required: Array) -> float:
    """The largest, as a share of the largest magnitude."""
    if not required.size:
        return 0.0
    wide = required.astype(np.float64)
    difference = float(np.abs(found.astype(np.float64) - wide).max())
    return difference / max(float(np.abs(wide).max()), 1e-30)


def _embeddings(bundle: Bundle, generator: np.random.Generator, rows: int) -> Array:
    """Rows [T, E] of random tokens."""
    ids = generator.integers(0, bundle.manifest.decoder.vocabulary, rows)
    return bundle.embeddings().lookup(ids.tolist())


def _pictures(generator: np.random.Generator, frames: int, side: int) -> Array:
    """Pixels [F, side, side, 3] in blocks, neighbours alike as in a video."""
    blocks = generator.integers(0, 256, (frames, 8, 8, 3), dtype=np.uint8)
    repeats = -(-side // 8)
    return blocks.repeat(repeats, axis=1).repeat(repeats, axis=2)[:, :side, :side]
