"""Would TensorRT's ONNX parser take these graphs? Neither TensorRT nor a GPU is needed.

A graph that passes has never been refused by the rules of :mod:`hermes_edge.export.lint_rules`; the
parser of the version at hand has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto

from hermes_edge.engines import Bundle
from hermes_edge.engines.trt.api import OLDEST
from hermes_edge.errors import BundleError, SettingsError
from hermes_edge.export.lint_rules import MEND, Scope, Setting, Version, node_rules
from hermes_edge.spec import ADDRESS_ALIGNMENT_BYTES

_FORM = "tensorrt, or tensorrt=10.3"
# Of each major, the newest whose operator table or bindings the rules were read from.
_NEWEST_MINOR = {10: 16, 11: 4}
_KNOWN = ", or ".join(
    f"{major}.{OLDEST[1] if major == OLDEST[0] else 0} to {major}.{minor}"
    for major, minor in _NEWEST_MINOR.items()
)

# The parser's tables begin with opset 9.
_OLDEST_OPSET = 9
# The parser has taken int4 since 10.0, and int4 came with opset 21.
_INT4_OPSET = 21
_OPSETS: tuple[tuple[Version, int], ...] = (((11, 0), 24), ((10, 15), 23), ((10, 0), 20))
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
        SettingsError: another form, or a version that is not supported, or not known.
    """
    match = re.fullmatch(r"tensorrt(?:=([0-9]{1,20})\.([0-9]{1,20})(?:\.[0-9]{1,20})*)?", text)
    if match is None:
        raise SettingsError("unknown target", required=_FORM, found=repr(text))
    version = (int(match[1]), int(match[2])) if match[1] else OLDEST
    found = ".".join(map(str, version))
    if version < OLDEST:
        raise SettingsError(
            "this TensorRT is too old",
            required=f"{'.'.join(map(str, OLDEST))} or newer",
            found=found,
        )
    if version[1] > _NEWEST_MINOR.get(version[0], -1):
        raise SettingsError(
            "the rules of this TensorRT are not known", required=_KNOWN, found=found
        )
    return version


def lint_bundle(path: Path, version: Version) -> list[Finding]:
    """Findings in all graphs of a bundle, and in its slabs.

    Raises:
        BundleError: the bundle is damaged.
    """
    manifest = Bundle.open(path).manifest
    findings = []
    row_bytes = manifest.decoder.row_bytes(manifest.precision)
    if row_bytes % ADDRESS_ALIGNMENT_BYTES:
        rule = f"required rows of a multiple of {ADDRESS_ALIGNMENT_BYTES} bytes, found {row_bytes}"
        findings.append(Finding("slabs", "keys and values", rule))
    for record in manifest.graphs.values():
        findings += lint_graph(path / record.file, version)
    return findings


def lint_graph(path: Path, version: Version) -> list[Finding]:
    """Findings in one ONNX file; of weights that lie beside it, only what a rule asks for is read.

    Raises:
        BundleError: it is no ONNX file, or weights that a rule looks at cannot be read.
    """
    model = _read(path)
    opsets = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not opsets:
        return [Finding(path.name, "graph", "required an opset, found none")]
    setting = Setting(path, opsets[0], version)
    if setting.opset < _OLDEST_OPSET:
        # Older operators have other inputs than the rules know.
        rule = f"required opset {_OLDEST_OPSET} or newer, found {setting.opset}"
        return [Finding(path.name, "graph", rule)]
    most = next(opset for since, opset in _OPSETS if version >= since)
    if any(tensor.data_type == TensorProto.INT4 for tensor in model.graph.initializer):
        most = max(most, _INT4_OPSET)
    findings = []
    if setting.opset > most:
        rule = f"required opset {most} or older, found {setting.opset}"
        findings.append(Finding(path.name, "graph", rule))
    return findings + list(_scope_findings(Scope(setting, model.graph)))


def _read(path: Path) -> ModelProto:
    """The model, with a type and a shape for every tensor as far as they can be told."""
    try:
        model = onnx.load(str(path), load_external_data=False)
        return onnx.shape_inference.infer_shapes(model)
    except (DecodeError, OSError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(
            f"{path} is damaged",
            required="an ONNX graph",
            found=" ".join(str(error).split()),
            fix=MEND,
        ) from None


def _scope_findings(scope: Scope) -> Iterator[Finding]:
    file = scope.setting.path.name
    yield from (Finding(file, name, rule) for name, rule in _tensor_rules(scope.graph))
    for index, node in enumerate(scope.graph.node):
        name = f"{node.op_type} {node.name or f'node {index}'}"
        yield from (Finding(file, name, rule) for rule in node_rules(scope, node))
        for body in scope.bodies(node):
            yield from _scope_findings(body)


def _tensor_rules(graph: GraphProto) -> Iterator[tuple[str, str]]:
    """Names of tensors, each with what the parser would refuse of it."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type:
            yield from _tensor_rule(value.name, "tensors", tensor.elem_type, len(tensor.shape.dim))
    for weight in graph.initializer:
        yield from _tensor_rule(weight.name, "weights", weight.data_type, len(weight.dims))


def _tensor_rule(name: str, kind: str, dtype: int, axes: int) -> Iterator[tuple[str, str]]:
    if dtype == TensorProto.DOUBLE:
        # No refusal, but other numbers than those of ONNX Runtime.
        yield name, f"{kind} of type DOUBLE are not supported: the parser makes them FLOAT"
    elif dtype not in _TYPES:
        known = dtype in TensorProto.DataType.values()
        found = TensorProto.DataType.Name(dtype) if known else dtype
        yield name, f"{kind} of type {found} are not supported"
    if axes > _MOST_RANK:
        yield name, f"required {_MOST_RANK} axes at most, found {axes}"
