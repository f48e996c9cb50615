"""Would TensorRT's ONNX parser take these graphs? Rules that need no TensorRT and no GPU.

From the parser's operator table (NVIDIA/TensorRT, onnx-tensorrt, docs/operators.md, 10.1 to 11.1),
its changelog and NvInfer.h. A graph that passes has never been refused by these rules; the parser
of the version at hand has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hermes_edge.engines import Bundle
from hermes_edge.engines.trt.api import OLDEST
from hermes_edge.errors import SettingsError
from hermes_edge.spec import ADDRESS_ALIGNMENT_BYTES

Version = tuple[int, int]

_FORM = "tensorrt, or tensorrt=10.3"

# Operators of a plain transformer that every version from 10.1 on takes.
_ALWAYS = frozenset(
    "Abs Add And ArgMax Cast Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum "
    "DequantizeLinear Div Einsum Equal Erf Exp Expand Flatten Floor Gather GatherElements "
    "GatherND Gelu Gemm Greater GreaterOrEqual Identity If IsInf IsNaN LayerNormalization "
    "Less LessOrEqual Log Loop MatMul Max Min Mod Mul Neg NonZero Not OneHot Or Pad Pow "
    "QuantizeLinear Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum Relu Reshape Resize Scan ScatterElements ScatterND Shape Sigmoid Sin Size "
    "Slice Softmax Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Trilu Unsqueeze Where "
    "Xor".split()
)
_SINCE: dict[str, Version] = {
    "Attention": (10, 14),
    "RotaryEmbedding": (10, 15),
    "RMSNormalization": (10, 15),
    "TensorScatter": (10, 15),
}
# The parser has taken int4 since 10.0, and int4 came with opset 21.
_INT4_OPSET = 21
_OPSETS: tuple[tuple[Version, int], ...] = (((11, 0), 24), ((10, 15), 23), ((10, 0), 20))
_MOST_TOP_K = 3840
_MOST_RANK = 8
_TYPES = frozenset(
    (
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.INT8,
        TensorProto.INT4,
        TensorProto.BOOL,
        TensorProto.UINT8,
    )
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the parser would refuse."""

    graph: str
    node: str
    rule: str

    def __str__(self) -> str:
        return f"{self.graph}: {self.node}: {self.rule}"


def parse_target(text: str) -> Version:
    """``tensorrt`` (the oldest version that is supported) or ``tensorrt=10.16``.

    Raises:
        SettingsError: another form, or a version that is not supported.
    """
    match = re.fullmatch(r"tensorrt(?:=(\d+)\.(\d+)(?:\.\d+)*)?", text)
    if match is None:
        raise SettingsError("unknown target", required=_FORM, found=repr(text))
    version = (int(match[1]), int(match[2])) if match[1] else OLDEST
    if version < OLDEST:
        raise SettingsError(
            "this TensorRT is too old",
            required=f"{'.'.join(map(str, OLDEST))} or newer",
            found=".".join(map(str, version)),
        )
    return version


def lint_bundle(path: Path, version: Version) -> list[Finding]:
    """Findings in all graphs of a bundle, and in its slabs.

    Raises:
        BundleError: the bundle is damaged.
    """
    manifest = Bundle.open(path, check_hashes=False).manifest
    findings = []
    row_bytes = manifest.decoder.row_bytes(manifest.precision)
    if row_bytes % ADDRESS_ALIGNMENT_BYTES:
        rule = f"required rows of a multiple of {ADDRESS_ALIGNMENT_BYTES} bytes, found {row_bytes}"
        findings.append(Finding("slabs", "keys and values", rule))
    for record in manifest.graphs.values():
        findings += lint_graph(path / record.file, version)
    return findings


def lint_graph(path: Path, version: Version) -> list[Finding]:
    """Findings in one ONNX file; of weights that lie beside it, scales alone are read."""
    model = onnx.load(str(path), load_external_data=False)
    graph = _Graph(path, model, version)
    findings = [*_model_findings(graph)]
    for index, node in enumerate(model.graph.node):
        name = f"{node.op_type} {node.name or f'node {index}'}"
        findings += [Finding(path.name, name, rule) for rule in _node_rules(graph, node)]
    return findings


class _Graph:
    """A model with what the rules ask of it."""

    def __init__(self, path: Path, model: onnx.ModelProto, version: Version) -> None:
        self.name, self.model, self.version = path.name, model, version
        self.folder = path.parent
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name: value for value in model.graph.input}
        self.constants = {
            node.output[0]: node for node in model.graph.node if node.op_type == "Constant"
        }

    def takes_bytes(self, node: NodeProto) -> bool:
        """Whether a uint8 input of the graph goes into a node."""
        types = [self.inputs[n].type.tensor_type.elem_type for n in node.input if n in self.inputs]
        return TensorProto.UINT8 in types

    def constant(self, name: str) -> Any:
        """A constant's value as an array; None where it is computed."""
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name], str(self.folder))
        node = self.constants.get(name)
        if node is None:
            return None
        value = helper.get_attribute_value(node.attribute[0])
        return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _model_findings(graph: _Graph) -> Iterator[Finding]:
    most = next(opset for since, opset in _OPSETS if graph.version >= since)
    if any(t.data_type == TensorProto.INT4 for t in graph.initializers.values()):
        most = max(most, _INT4_OPSET)
    for opset in graph.model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > most:
            rule = f"required opset {most} or older, found {opset.version}"
            yield Finding(graph.name, "graph", rule)
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type not in _TYPES:
            found = TensorProto.DataType.Name(tensor.elem_type)
            yield Finding(graph.name, value.name, f"tensors of type {found} are not supported")
        if len(tensor.shape.dim) > _MOST_RANK:
            yield Finding(graph.name, value.name, f"required {_MOST_RANK} axes at most")
    for tensor in graph.model.graph.initializer:
        if tensor.data_type not in _TYPES:
            found = TensorProto.DataType.Name(tensor.data_type)
            yield Finding(graph.name, tensor.name, f"weights of type {found} are not supported")


def _node_rules(graph: _Graph, node: NodeProto) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx"):
        yield f"operators of {node.domain} are not supported"
        return
    since = _SINCE.get(node.op_type)
    if since is not None and graph.version < since:
        yield f"required TensorRT {since[0]}.{since[1]} or newer"
    elif since is None and node.op_type not in _ALWAYS:
        yield "not in the parser's table of operators"
    if node.op_type != "Cast" and graph.takes_bytes(node):
        yield "uint8 inputs can be cast, and nothing else"
    if node.op_type in _RULES:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        yield from _RULES[node.op_type](graph, node, attributes)


def _top_k(graph: _Graph, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    if attributes.get("sorted", 1) != 1:
        yield "required sorted = 1"
    count = graph.constant(node.input[1])
    if count is None:
        yield "K is computed: above 3,840 it fails when it runs"
    elif int(count.reshape(-1)[0]) > _MOST_TOP_K:
        yield f"required K of {_MOST_TOP_K} at most, found {int(count.reshape(-1)[0])}"


def _resize(graph: _Graph, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    mode = attributes.get("mode", b"nearest").decode()
    if mode not in ("nearest", "linear"):
        yield f"required mode nearest or linear, found {mode}"
    if attributes.get("antialias", 0):
        yield "antialias is not supported"


def _quantization(graph: _Graph, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    scale = graph.constant(node.input[1])
    if scale is not None and not bool((scale > 0).all()):
        yield "required scales above 0"
    if attributes.get("block_size", 0):
        weight = graph.initializers.get(node.input[0])
        if weight is None or weight.data_type != TensorProto.INT4 or len(weight.dims) != 2:
            yield "blocks are for constant int4 matrices"
    if len(node.input) < 3 or not node.input[2]:
        return
    zero = graph.constant(node.input[2])
    if zero is None or bool(zero.any()):
        yield "required a zero point of 0"


def _reduction(graph: _Graph, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    if len(node.input) > 1 and node.input[1] and graph.constant(node.input[1]) is None:
        yield "required constant axes"


def _running_sum(graph: _Graph, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    if graph.constant(node.input[1]) is None:
        yield "required a constant axis"


def _attention(graph: _Graph, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    if any(node.input[4:7]) or any(node.output[1:3]):
        yield "past and present keys and values are not supported inside the operator"
    if "softcap" in attributes or any(node.output[3:4]):
        yield "softcap and the product of queries and keys are not supported"


_Rule = Callable[[_Graph, NodeProto, dict[str, Any]], Iterator[str]]
_RULES: dict[str, _Rule] = {
    "TopK": _top_k,
    "Resize": _resize,
    "QuantizeLinear": _quantization,
    "DequantizeLinear": _quantization,
    "CumSum": _running_sum,
    "Attention": _attention,
    **{f"Reduce{kind}": _reduction for kind in ("L2", "Max", "Mean", "Min", "Prod", "Sum")},
}
