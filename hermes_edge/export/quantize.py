"""Weight-only quantization: a decoder's matrices [in, out] as int8 or int4 times positive scales.

    MatMul(rows, weight)  ->  MatMul(rows, DequantizeLinear(integers, scales))

Plain ai.onnx, which every backend loads: TensorRT keeps the integers, ONNX Runtime makes one
MatMulNBits of the pair (int4 in 1.23 already, int8 in 1.32). int8 has a scale per output channel
(opset 20 will do), int4 one per block of inputs (opset 21).

The arithmetic is written here because no library's result can be used: the quantizer of ONNX
Runtime 1.32 stores negative scales, which TensorRT's parser refuses, and has no int8 in this form;
torch 2.13 has deprecated its own.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir

from hermes_edge.engines.views import Array
from hermes_edge.errors import SettingsError
from hermes_edge.spec import WEIGHT_BLOCKS, DecoderSpec, Precision, Quantization

OLDEST_OPSET = {8: 20, 4: 21}
"""Of a graph with matrices of so many bits."""

# Four bits pay for outliers: each block takes the clipping with the least squared error. Against
# none, the error of hermes-tiny's weights falls from 9.7 % to 8.7 % (blocks of 32); a grid four
# times as fine gains 0.1 % more.
_CLIPPING = {8: (1.0,), 4: (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)}

# TensorRT's parser wants every scale above zero, that of an empty column too. Half precision goes
# down to its subnormal numbers: columns below 0.008 would get a scale that is too large otherwise.
_LEAST_SCALE: dict[Precision, float] = {
    "fp32": float(np.finfo(np.float32).tiny),
    "fp16": float(np.finfo(np.float16).smallest_subnormal),
}

# Columns are quantized in slabs: float copies of an output head would be gigabytes.
_SLAB_COLUMNS = 8192


def check_quantization(
    quantization: Quantization, decoder: DecoderSpec, precision: Precision
) -> None:
    """Refuse what the decoder's matrices cannot be.

    Raises:
        SettingsError: an unknown format, one that cannot stand beside the precision, or blocks that
            do not divide a matrix's inputs.
    """
    if precision == "bf16":
        # No provider of ONNX Runtime dequantizes to bf16 (1.20 to 1.32).
        raise SettingsError(
            "integer weights cannot stand beside bf16",
            required="fp32 or fp16",
            found=precision,
            fix="Export with --compute fp16",
        )
    bits, block = quantization.bits, quantization.block
    fits = (bits == 8 and block is None) or (bits == 4 and block in WEIGHT_BLOCKS)
    if not fits:
        raise SettingsError(
            "unknown quantization",
            required="int8, or int4 in blocks of " + " or ".join(map(str, WEIGHT_BLOCKS)),
            found=quantization,
        )
    if not quantization.divides(decoder):
        raise SettingsError(
            f"blocks of {block} do not fit the decoder's matrices",
            required=f"inputs that are multiples of {block}",
            found=", ".join(map(str, sorted({inputs for inputs, _ in decoder.matrices()}))),
            fix="Export with --block 32, or --dtype int8",
        )


def quantize(matrix: Array, quantization: Quantization, precision: Precision) -> tuple[Array, ...]:
    """Integers [in, out] (int8, or ml_dtypes' int4) and scales of the precision's dtype.

    Scales are [out], or [in / block, out]. Zero is kept exactly, and no scale is zero.
    """
    parts = [
        _quantize(matrix[:, first : first + _SLAB_COLUMNS], quantization, precision)
        for first in range(0, matrix.shape[1], _SLAB_COLUMNS)
    ]
    integers, scales = zip(*parts, strict=True)
    return np.concatenate(integers, axis=1), np.concatenate(scales, axis=-1)


def dequantize(integers: Array, scales: Array) -> Array:
    """Float32 [in, out] of what ``quantize`` gave."""
    wide = scales.astype(np.float32)
    if wide.ndim == 2:
        wide = wide.repeat(len(integers) // len(wide), axis=0)
    product: Array = integers.astype(np.float32) * wide
    return product


def quantize_graph(
    model: onnx_ir.Model, quantization: Quantization, decoder: DecoderSpec, precision: Precision
) -> None:
    """Quantize every matrix of a traced decoder in place."""
    graph = model.graph
    products = [(node, *weight) for node in graph if (weight := _weight(node)) is not None]
    found = sorted(matrix.shape for _, _, matrix in products)
    # A matrix that the exporter has hidden behind another operator would stay as large as it was.
    if found != sorted(decoder.matrices()):
        raise AssertionError(f"the graph's matrices are {found}")
    for node, name, matrix in products:
        integers, scales = quantize(matrix, quantization, precision)
        inputs = [
            _initializer(graph, f"{name}.{part}", array)
            for part, array in (("integers", integers), ("scales", scales))
        ]
        blocks = {} if quantization.block is None else {"block_size": quantization.block}
        axis = 1 if quantization.block is None else 0
        widened = onnx_ir.node(
            "DequantizeLinear", inputs, attributes={"axis": axis, **blocks}, num_outputs=1
        )
        widened.outputs[0].name = f"{name}.dequantized"
        graph.insert_before(node, widened)
        node.replace_input_with(1, widened.outputs[0])
        if not graph.initializers[name].uses():
            del graph.initializers[name]


def _quantize(
    columns: Array, quantization: Quantization, precision: Precision
) -> tuple[Array, Array]:
    bits, block = quantization.bits, quantization.block
    rows, count = columns.shape
    blocks = columns.astype(np.float32).reshape(-1, block or rows, count)
    most = 2 ** (bits - 1) - 1
    # Symmetric in eight bits; in four, the one more negative value is worth having.
    least = -most if bits == 8 else -most - 1
    dtype = np.float16 if precision == "fp16" else np.float32
    largest = np.abs(blocks).max(axis=1, keepdims=True) / most
    integers = np.empty(blocks.shape, np.int8)
    scales = np.empty(largest.shape, dtype)
    errors = np.full(largest.shape, np.inf, np.float32)
    for share in _CLIPPING[bits]:
        # Scales are rounded first, so that the integers fit what will be stored.
        wide = np.maximum(
            (share * largest).astype(dtype).astype(np.float32), _LEAST_SCALE[precision]
        )
        rounded = np.clip(np.rint(blocks / wide), least, most)
        error = np.square(rounded * wide - blocks).sum(axis=1, keepdims=True)
        better = error < errors
        errors = np.where(better, error, errors)
        scales = np.where(better, wide.astype(dtype), scales)
        integers = np.where(better, rounded.astype(np.int8), integers)
    flat = integers.reshape(rows, count)
    per_column = scales[0, 0] if block is None else scales[:, 0]
    return flat.astype(ml_dtypes.int4) if bits == 4 else flat, per_column


def _weight(node: onnx_ir.Node) -> tuple[str, Array] | None:
    """Name and values of the constant that a node multiplies by; None for other nodes."""
    value = node.inputs[1] if node.op_type == "MatMul" else None
    if value is None or value.name is None or value.const_value is None:
        return None
    return value.name, value.const_value.numpy()


def _initializer(graph: onnx_ir.Graph, name: str, array: Array) -> onnx_ir.Value:
    tensor = onnx_ir.tensor(array, name=name)
    value = onnx_ir.Value(
        name=name,
        shape=onnx_ir.Shape(array.shape),
        type=onnx_ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
