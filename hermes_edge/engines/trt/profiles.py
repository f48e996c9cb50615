"""Ranges of every dynamic axis, from the contract and a session's geometry.

A plan answers for the shapes of its profiles and no others, so they are computed and never typed:
the decoder has one profile for many new rows (chunks, probes, questions) and one for a single row.
Neither fixes the cached rows: a static decoder's slabs have one length in a session, and sessions
with a smaller budget have a shorter one.
TensorRT's word on tensors without elements is not tried here, so no axis is ever 0; the engine
hands in one row of zeros instead, which none of the graphs lets anybody see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hermes_edge.contract import GraphSpec, TensorSpec


@dataclass(frozen=True, slots=True)
class Range:
    """Least, usual and most lengths of a tensor's axes."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape lies within."""
        return len(shape) == len(self.most) and all(
            low <= length <= high
            for low, length, high in zip(self.least, shape, self.most, strict=True)
        )


Profile = Mapping[str, Range]
"""Ranges by input; an input of fixed shape is among them too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest session that an engine shall serve.

    Attributes:
        capacity_rows: of a slab: prefix, budget, chunk and reserve.
        pass_rows: most new rows of one pass of the decoder.
        probe_rows: of both probes.
        frames: most frames of one call of the vision graph.
    """

    capacity_rows: int
    pass_rows: int
    probe_rows: int
    frames: int


_Axes = Mapping[str, tuple[int, int, int]]


def profiles_for(graph: GraphSpec, limits: Limits) -> tuple[Profile, ...]:
    """The profiles of a graph, in the order in which they are added to its plan.

    Raises:
        KeyError: an axis that the contract names and this function does not know.
    """
    rows, probes = limits.capacity_rows, limits.probe_rows
    shared: _Axes = {
        "S": (1, rows, rows),
        "P": (1, probes, probes),
        "F": (1, limits.frames, limits.frames),
    }
    if graph.name == "decoder":
        passes = ((1, limits.pass_rows, limits.pass_rows), (1, 1, 1))
        return tuple(_profile(graph, {**shared, "T": new, "R": (1, 1, 1)}) for new in passes)
    if graph.name == "compact":
        return (_profile(graph, {**shared, "K": (1, rows, rows), "R": (1, rows // 2 + 1, rows)}),)
    return (_profile(graph, shared),)


def _profile(graph: GraphSpec, axes: _Axes) -> Profile:
    return {tensor.name: _range(tensor, axes) for tensor in graph.inputs}


def _range(tensor: TensorSpec, axes: _Axes) -> Range:
    # S0, S1, ...: every layer's rows have an axis of their own.
    bounds = [
        (axis, axis, axis) if isinstance(axis, int) else axes[axis.rstrip("0123456789")]
        for axis in tensor.axes
    ]
    least, usual, most = zip(*bounds, strict=True)
    return Range(least, usual, most)
