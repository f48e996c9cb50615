"""From a module to an ONNX file with exactly the tensors that the contract names."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from torch import Tensor, nn

from hermes_edge.contract import GraphSpec, TensorSpec
from hermes_edge.errors import SettingsError

SUPPORTED_OPSETS = (20, 23)

# Larger weights go to a file of their own, which runtimes map instead of parsing.
_EXTERNAL_DATA_BYTES = 64 << 20


def check_opset(opset: int) -> None:
    """Refuse an opset that the graphs are not tested with.

    Raises:
        SettingsError: not one of ``SUPPORTED_OPSETS``.
    """
    if opset not in SUPPORTED_OPSETS:
        raise SettingsError(
            "unsupported opset", required=" or ".join(map(str, SUPPORTED_OPSETS)), found=opset
        )


def trace(module: nn.Module, graph: GraphSpec, opset: int) -> onnx_ir.Model:
    """Trace ``module``.

    Inputs and outputs get the contract's names and axis names; the order is the contract's.
    """
    arguments, shapes = _arguments(graph)
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            arguments,
            input_names=[tensor.name for tensor in graph.inputs],
            output_names=[tensor.name for tensor in graph.outputs],
            dynamic_shapes=shapes,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise AssertionError("the exporter returned no program")
    model = program.model
    _name_axes(model.graph.inputs, graph.inputs)
    _name_axes(model.graph.outputs, graph.outputs)
    _strip(model)
    return model


def save(model: onnx_ir.Model, path: Path) -> None:
    """Write a model, its weights in ``path.data`` beside it where they are large.

    Raises:
        OSError: a file cannot be written.
    """
    weights = [value.const_value for value in model.graph.initializers.values()]
    large = sum(weight.nbytes for weight in weights if weight) > _EXTERNAL_DATA_BYTES
    onnx_ir.save(model, path, external_data=f"{path.name}.data" if large else None)


def _arguments(graph: GraphSpec) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Example inputs and their dynamic axes; the caches are one list argument, the last."""
    lengths = _axis_lengths(graph)
    plain: list[Any] = []
    plain_axes: list[Any] = []
    past: list[Tensor] = []
    past_axes: list[dict[int, str]] = []
    for tensor in graph.inputs:
        shape = [axis if isinstance(axis, int) else lengths[axis] for axis in tensor.axes]
        example = torch.zeros(shape, dtype=getattr(torch, tensor.dtype))
        axes = {index: axis for index, axis in enumerate(tensor.axes) if isinstance(axis, str)}
        is_cache = tensor.name.startswith("past_key_values.")
        (past if is_cache else plain).append(example)
        (past_axes if is_cache else plain_axes).append(axes)
    if not past:
        return tuple(plain), tuple(plain_axes)
    return (*plain, past), (*plain_axes, past_axes)


def _axis_lengths(graph: GraphSpec) -> dict[str, int]:
    """A different example length for every dynamic axis; 0 and 1 would be taken as constants."""
    names = dict.fromkeys(axis for t in graph.inputs for axis in t.axes if isinstance(axis, str))
    return {name: 3 + index for index, name in enumerate(names)}


def _name_axes(values: Sequence[onnx_ir.Value], tensors: Sequence[TensorSpec]) -> None:
    """Derived axes get their name from the contract too (the exporter calls K+1 ``K + 1``)."""
    for value, tensor in zip(values, tensors, strict=True):
        value.shape = onnx_ir.Shape(tensor.axes)


def _strip(model: onnx_ir.Model) -> None:
    """Remove the exporter's notes: they hold paths of the machine that exported."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in model.graph.initializers.values():
        value.metadata_props.clear()


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's progress notes off the terminal; its errors still come through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.13 warns of its own calls.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            # An axis that several inputs share is named once; the names are compared afterwards.
            warnings.filterwarnings("ignore", r"# The axis name: ", UserWarning)
            yield
    finally:
        logger.setLevel(level)
