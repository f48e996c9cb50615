"""What TensorRT's ONNX parser takes of a node. Rules that need no TensorRT and no GPU.

From the parser's operator table (NVIDIA/TensorRT, onnx-tensorrt, docs/operators.md, 10.1 to 11.1),
its changelog and NvInfer.h; what every node must have, from ONNX's own schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from hermes_edge.errors import BundleError

Version = tuple[int, int]

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
_MOST_TOP_K = 3840
MEND = "Copy the bundle again, or export it again with: hermes-edge export CHECKPOINT -o BUNDLE"


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a graph lies, its opset, and the TensorRT that shall parse it."""

    path: Path
    opset: int
    version: Version


class Scope:
    """A graph, or the body of an If, Loop or Scan, which sees what encloses it."""

    def __init__(self, setting: Setting, graph: GraphProto, outer: Scope | None = None) -> None:
        self.setting, self.graph = setting, graph
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = {value.name: value for value in graph.input}
        self._constants = {
            name: node for node in graph.node if node.op_type == "Constant" for name in node.output
        }
        if outer is not None:
            self.weights = outer.weights | self.weights
            self.inputs = outer.inputs | self.inputs
            self._constants = outer._constants | self._constants

    def bodies(self, node: NodeProto) -> Iterator[Scope]:
        """The graphs inside a node."""
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for graph in graphs:
                yield Scope(self.setting, graph, self)

    def takes_bytes(self, node: NodeProto) -> bool:
        """Whether a uint8 input of the graph goes into a node."""
        types = [self.inputs[n].type.tensor_type.elem_type for n in node.input if n in self.inputs]
        return TensorProto.UINT8 in types

    def constant(self, name: str) -> Any:
        """A constant's numbers as an array; None where it is computed.

        Raises:
            BundleError: they cannot be read.
        """
        value: Any = self.weights.get(name)
        node: Any = self._constants.get(name)
        if value is None and (node is None or len(node.attribute) != 1):
            return None
        try:
            if value is None:
                value = helper.get_attribute_value(node.attribute[0])
            if isinstance(value, TensorProto):
                value = numpy_helper.to_array(value, str(self.setting.path.parent))
            return np.asarray(value, dtype=np.float64)
        # A missing file, one outside the folder, too few bytes, an unknown type, text.
        except (onnx.checker.ValidationError, OSError, ValueError, TypeError, KeyError) as error:
            raise BundleError(
                f"{self.setting.path} is damaged",
                required=f"the numbers of {name}",
                found=" ".join(str(error).split()),
                fix=MEND,
            ) from None


def node_rules(scope: Scope, node: NodeProto) -> Iterator[str]:
    """What the parser would refuse of a node, bodies aside.

    Raises:
        BundleError: weights that a rule looks at cannot be read.
    """
    if node.domain not in ("", "ai.onnx"):
        yield f"operators of {node.domain} are not supported"
        return
    since = _SINCE.get(node.op_type)
    if since is None and node.op_type not in _ALWAYS:
        yield "not in the parser's table of operators"
        return
    if since is not None and scope.setting.version < since:
        yield f"required TensorRT {since[0]}.{since[1]} or newer"
        return
    if node.op_type != "Cast" and scope.takes_bytes(node):
        yield "uint8 inputs can be cast, and nothing else"
    faults = list(_schema_faults(node, scope.setting.opset))
    yield from faults
    # The rules count on inputs and attributes to be what the schema says.
    if not faults and node.op_type in _RULES:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        yield from _RULES[node.op_type](scope, node, attributes)


def _schema_faults(node: NodeProto, opset: int) -> Iterator[str]:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        yield f"opset {opset} has no such operator"
        return
    for number, formal in enumerate(schema.inputs):
        given = number < len(node.input) and node.input[number]
        if formal.option == onnx.defs.OpSchema.FormalParameterOption.Single and not given:
            yield f"required an input {formal.name}, found none"
    found = {a.name: AttributeProto.AttributeType.Name(a.type) for a in node.attribute}
    yield from (
        f"required an attribute {name} of a type, found none"
        for name, kind in found.items()
        if kind == "UNDEFINED" and name not in schema.attributes
    )
    for name, attribute in schema.attributes.items():
        kind = str(attribute.type).removeprefix("AttrType.")
        if name not in found:
            if attribute.required:
                yield f"required an attribute {name}, found none"
        elif found[name] != kind:
            yield f"required an attribute {name} of type {kind}, found {found[name]}"


def _top_k(scope: Scope, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    if attributes.get("sorted", 1) != 1:
        yield "required sorted = 1"
    count = scope.constant(node.input[1])
    if count is None:
        yield "K is computed: above 3,840 it fails when it runs"
    elif count.size != 1:
        yield f"required one number K, found {count.size}"
    elif count.item() > _MOST_TOP_K:
        yield f"required K of {_MOST_TOP_K} at most, found {count.item():g}"


def _resize(scope: Scope, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    mode = attributes.get("mode", b"nearest").decode()
    if mode not in ("nearest", "linear"):
        yield f"required mode nearest or linear, found {mode}"
    if attributes.get("antialias", 0):
        yield "antialias is not supported"


def _quantization(scope: Scope, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    scale = scope.constant(node.input[1])
    if scale is not None and not bool((scale > 0).all()):
        yield "required scales above 0"
    if attributes.get("block_size", 0):
        weight = scope.weights.get(node.input[0])
        if weight is None or weight.data_type != TensorProto.INT4 or len(weight.dims) != 2:
            yield "blocks are for constant int4 matrices"
    if len(node.input) < 3 or not node.input[2]:
        return
    zero = scope.constant(node.input[2])
    if zero is None or bool(zero.any()):
        yield "required a zero point of 0"


def _reduction(scope: Scope, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    if len(node.input) > 1 and node.input[1] and scope.constant(node.input[1]) is None:
        yield "required constant axes"


def _running_sum(scope: Scope, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    if scope.constant(node.input[1]) is None:
        yield "required a constant axis"


def _attention(scope: Scope, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    if any(node.input[4:7]) or any(node.output[1:3]):
        yield "past and present keys and values are not supported inside the operator"
    if "softcap" in attributes or any(node.output[3:4]):
        yield "softcap and the product of queries and keys are not supported"


_Rule = Callable[[Scope, NodeProto, dict[str, Any]], Iterator[str]]
_RULES: dict[str, _Rule] = {
    "TopK": _top_k,
    "Resize": _resize,
    "QuantizeLinear": _quantization,
    "DequantizeLinear": _quantization,
    "CumSum": _running_sum,
    "Attention": _attention,
    **{f"Reduce{kind}": _reduction for kind in ("L2", "Max", "Mean", "Min", "Prod", "Sum")},
}
