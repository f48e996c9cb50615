"""TensorRT's rules on graphs that break them one at a time, and on our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hermes_edge.errors import SettingsError
from hermes_edge.export.lint import Finding, lint_bundle, lint_graph, parse_target
from hermes_edge.shipped import TINY_BUNDLE

Cli = Callable[..., tuple[int, str, str]]


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    opset: int = 20,
    domain: str = "",
    dtype: int = TensorProto.FLOAT,
    constants: dict[str, Any] | None = None,
) -> Path:
    """A graph x -> y of the nodes."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", dtype, ["T", 4]), value("k", TensorProto.INT64, [1])],
        [value("y", TensorProto.FLOAT, ["T", 4])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    onnx.save(helper.make_model(graph, opset_imports=imports), path)
    return path


def rules(path: Path, version: tuple[int, int] = (10, 3)) -> list[str]:
    return [finding.rule for finding in lint_graph(path, version)]


@pytest.mark.parametrize("version", [(10, 3), (10, 16), (11, 4)])
def test_our_graphs_pass(version: tuple[int, int]) -> None:
    assert lint_bundle(TINY_BUNDLE, version) == []


def node(kind: str, inputs: str = "x", outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), name="here", **attributes)


@pytest.mark.parametrize(
    ("bad", "constants", "rule"),
    [
        (
            node("DequantizeLinear", "w s"),
            {"w": np.zeros(4, np.int8), "s": np.float32(-0.5)},
            "required scales above 0",
        ),
        (
            node("DequantizeLinear", "w s", axis=0, block_size=2),
            {"w": np.zeros((4, 4), np.int8), "s": np.ones((2, 4), np.float32)},
            "blocks are for constant int4 matrices",
        ),
        (node("BitShift", "x x", direction="LEFT"), {}, "not in the parser's table of operators"),
        (node("TopK", "x k", "y i", sorted=0), {"k": [8]}, "required sorted = 1"),
        (node("TopK", "x n", "y i"), {"n": [3841]}, "required K of 3840 at most, found 3841"),
        (node("TopK", "x k", "y i"), {}, "K is computed: above 3,840 it fails when it runs"),
        (
            node("Resize", "x", mode="cubic"),
            {},
            "required mode nearest or linear, found cubic",
        ),
        (node("Resize", "x", mode="linear", antialias=1), {}, "antialias is not supported"),
        (
            node("DequantizeLinear", "x s z"),
            {"s": np.float32(1), "z": np.uint8(3)},
            "required a zero point of 0",
        ),
        (node("ReduceSum", "x k"), {}, "required constant axes"),
        (node("CumSum", "x k"), {}, "required a constant axis"),
        (node("RMSNormalization", "x s"), {"s": np.ones(4)}, "required TensorRT 10.15 or newer"),
    ],
)
def test_every_rule_names_the_node(
    tmp_path: Path, bad: onnx.NodeProto, constants: dict[str, Any], rule: str
) -> None:
    path = save(tmp_path / "bad.onnx", [bad], constants=constants)
    findings = [f for f in lint_graph(path, (10, 3)) if f.node != "s"]
    assert findings == [Finding("bad.onnx", f"{bad.op_type} here", rule)]
    assert str(findings[0]) == f"bad.onnx: {bad.op_type} here: {rule}"


def test_the_same_operators_within_the_rules(tmp_path: Path) -> None:
    good = [
        node("TopK", "x n", "a i"),
        node("ReduceSum", "a n", "b"),
        node("DequantizeLinear", "b s z"),
    ]
    constants = {"n": np.array([3]), "s": np.float32(1), "z": np.int8(0)}
    assert rules(save(tmp_path / "good.onnx", good, constants=constants)) == []


def test_versions(tmp_path: Path) -> None:
    path = save(tmp_path / "new.onnx", [node("Relu")], opset=23)
    assert rules(path, (10, 13)) == ["required opset 20 or older, found 23"]
    assert rules(path, (10, 16)) == []
    assert rules(save(path, [node("Relu")], opset=25), (11, 4)) == [
        "required opset 24 or older, found 25"
    ]


def test_other_domains_and_types(tmp_path: Path) -> None:
    own = helper.make_node("GroupQueryAttention", ["x"], ["y"], domain="com.microsoft")
    assert rules(save(tmp_path / "own.onnx", [own], domain="com.microsoft")) == [
        "operators of com.microsoft are not supported"
    ]
    assert rules(save(tmp_path / "wide.onnx", [node("Relu")], dtype=TensorProto.DOUBLE)) == [
        "tensors of type DOUBLE are not supported"
    ]
    cast = node("Cast", "x", to=TensorProto.FLOAT)
    assert rules(save(tmp_path / "bytes.onnx", [cast], dtype=TensorProto.UINT8)) == []
    assert rules(save(tmp_path / "bytes.onnx", [node("Relu")], dtype=TensorProto.UINT8)) == [
        "uint8 inputs can be cast, and nothing else"
    ]


def test_attention_keeps_no_past(tmp_path: Path) -> None:
    bad = node("Attention", "x x x m p q", "y r s")
    assert rules(save(tmp_path / "a.onnx", [bad], opset=23), (10, 16)) == [
        "past and present keys and values are not supported inside the operator"
    ]
    assert rules(save(tmp_path / "a.onnx", [node("Attention", "x x x")], opset=23), (10, 16)) == []


def test_rows_that_are_not_aligned(random_bundle: Path) -> None:
    # 2 heads of 16 in fp32 are 128 bytes.
    (finding,) = lint_bundle(random_bundle, (10, 3))
    assert str(finding) == (
        "slabs: keys and values: required rows of a multiple of 256 bytes, found 128"
    )


def test_targets() -> None:
    assert parse_target("tensorrt") == (10, 3)
    assert parse_target("tensorrt=10.16") == parse_target("tensorrt=10.16.1.11") == (10, 16)
    with pytest.raises(SettingsError) as caught:
        parse_target("tensorrt=8.6")
    assert str(caught.value) == "this TensorRT is too old: required 10.3 or newer, found 8.6"
    with pytest.raises(SettingsError) as caught:
        parse_target("cuda")
    assert str(caught.value) == (
        "unknown target: required tensorrt, or tensorrt=10.3, found 'cuda'"
    )
