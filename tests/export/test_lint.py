"""TensorRT's rules on graphs that break them one at a time, and on our own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hermes_edge.errors import BundleError, SettingsError
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
    assert rules(save(path, [node("Relu")], opset=8), (11, 4)) == [
        "required opset 9 or newer, found 8"
    ]
    assert rules(save(path, [node("Relu")], opset=9), (11, 4)) == []


def test_other_domains_and_types(tmp_path: Path) -> None:
    own = helper.make_node("GroupQueryAttention", ["x"], ["y"], domain="com.microsoft")
    assert rules(save(tmp_path / "own.onnx", [own], domain="com.microsoft")) == [
        "operators of com.microsoft are not supported"
    ]
    assert rules(save(tmp_path / "wide.onnx", [node("Relu")], dtype=TensorProto.DOUBLE)) == [
        "tensors of type DOUBLE are not supported: the parser makes them FLOAT"
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


DOUBLE = "of type DOUBLE are not supported: the parser makes them FLOAT"


def test_types_and_axes_between_the_nodes(tmp_path: Path) -> None:
    constant = helper.make_tensor("c", TensorProto.DOUBLE, [4], [1.0] * 4)
    nodes = [
        node("Cast", "x", "wide", to=TensorProto.DOUBLE),
        node("Constant", "", "c", value=constant),
        node("Mul", "wide c", "product"),
        node("Cast", "product", "narrow", to=TensorProto.FLOAT),
        node("Reshape", "narrow nine", "deep"),
        node("Reshape", "deep two", "y"),
    ]
    constants = {
        "nine": np.array([1] * 7 + [-1, 4]),
        "two": np.array([-1, 4]),
        "unused": np.zeros([1] * 9, np.float32),
    }
    path = save(tmp_path / "deep.onnx", nodes, constants=constants)
    found = {finding.node: finding.rule for finding in lint_graph(path, (10, 3))}
    assert found == {
        **dict.fromkeys(("wide", "c", "product"), f"tensors {DOUBLE}"),
        **dict.fromkeys(("deep", "unused"), "required 8 axes at most, found 9"),
    }


@pytest.mark.parametrize("kind", ["If", "Loop", "Scan"])
def test_bodies_of_nodes(tmp_path: Path, kind: str) -> None:
    """A body sees the constants around it, and is judged by the same rules."""
    value, scalar = helper.make_tensor_value_info, helper.make_tensor_value_info
    inner = [
        node("BitShift", "x x", "a", direction="LEFT"),
        node("CumSum", "a axis", "b"),
        node("Cast", "b", "out", to=TensorProto.DOUBLE),
    ]
    carried = {
        "If": [],
        "Loop": [scalar("i", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, [])],
        "Scan": [value("row", TensorProto.FLOAT, [4])],
    }[kind]
    outputs = [value("out", TensorProto.DOUBLE, None)]
    if kind == "Loop":
        inner.append(node("Identity", "go", "on"))
        outputs.insert(0, scalar("on", TensorProto.BOOL, []))
    body = helper.make_graph(inner, "body", carried, outputs)
    outer = {
        "If": node("If", "flag", "y", then_branch=body, else_branch=body),
        "Loop": node("Loop", "n flag", "y", body=body),
        "Scan": node("Scan", "x", "y", body=body, num_scan_inputs=1),
    }[kind]
    constants = {"axis": np.int64(0), "flag": np.bool_(True), "n": np.int64(2)}
    found = rules(save(tmp_path / "body.onnx", [outer], constants=constants))
    times = 2 if kind == "If" else 1
    assert found.count("not in the parser's table of operators") == times
    assert f"tensors {DOUBLE}" in found
    assert set(found) == {"not in the parser's table of operators", f"tensors {DOUBLE}"}


@pytest.mark.parametrize(
    ("bad", "constants", "rule"),
    [
        (node("CumSum", "x"), {}, "required an input axis, found none"),
        (node("Cast", "x"), {}, "required an attribute to, found none"),
        (node("Resize", "x", mode=3), {}, "required an attribute mode of type STRING, found INT"),
        (
            node("TopK", "x e", "y i"),
            {"e": np.empty(0, np.int64)},
            "required one number K, found 0",
        ),
        (node("Attention", "x x x"), {}, "opset 20 has no such operator"),
    ],
)
def test_nodes_that_are_not_whole(
    tmp_path: Path, bad: onnx.NodeProto, constants: dict[str, Any], rule: str
) -> None:
    assert rules(save(tmp_path / "bad.onnx", [bad], constants=constants), (10, 16)) == [rule]


def test_an_input_that_is_there_by_its_place_alone(tmp_path: Path) -> None:
    bad = helper.make_node("TopK", ["x", ""], ["y", "i"])
    assert rules(save(tmp_path / "bad.onnx", [bad])) == ["required an input K, found none"]


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("gone.data", "it is not regular file"),
        ("../outside.data", "points outside the directory"),
        ("short.data", "exceeds"),
    ],
)
def test_scales_that_cannot_be_read(tmp_path: Path, location: str, found: str) -> None:
    (tmp_path / "outside.data").write_bytes(bytes(16))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "short.data").write_bytes(bytes(3))
    bad = node("DequantizeLinear", "w s")
    path = save(folder / "bad.onnx", [bad], constants={"w": np.zeros(4, np.int8)})
    model = onnx.load(str(path))
    scale = model.graph.initializer.add(name="s", data_type=TensorProto.FLOAT, dims=[4])
    scale.data_location = TensorProto.EXTERNAL
    scale.external_data.add(key="location", value=location)
    scale.external_data.add(key="length", value="16")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError) as caught:
        lint_graph(path, (10, 3))
    text = str(caught.value)
    assert text.startswith(f"{path} is damaged: required the numbers of s, found ")
    assert found in text
    assert text.endswith(MEND)


MEND = ". Copy the bundle again, or export it again with: hermes-edge export CHECKPOINT -o BUNDLE"


def test_files_that_are_no_graphs(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(b"foreign bytes")
    with pytest.raises(BundleError) as caught:
        lint_graph(path, (10, 3))
    assert str(caught.value).startswith(f"{path} is damaged: required an ONNX graph, found ")
    assert str(caught.value).endswith(MEND)
    with pytest.raises(BundleError, match=r"found \[ShapeInferenceError\] \(op_type:TopK, node "):
        lint_graph(save(path, [node("TopK", "x", "y i")]), (10, 3))
    path.write_bytes(b"")
    assert rules(path) == ["required an opset, found none"]


def test_any_bytes_are_findings_or_damage(random_bundle: Path, tmp_path: Path) -> None:
    """Bytes of a real graph changed at random: no other error comes out."""
    whole = (random_bundle / "compact.onnx").read_bytes()
    random, damaged = np.random.default_rng(0), 0
    for _ in range(400):
        changed = bytearray(whole)
        for at in random.integers(len(whole), size=int(random.integers(1, 6))):
            changed[at] = int(random.integers(256))
        path = tmp_path / "changed.onnx"
        path.write_bytes(bytes(changed))
        try:
            lint_graph(path, (10, 3))
        except BundleError:
            damaged += 1
    assert 0 < damaged < 400


def test_a_foreign_graph_of_the_same_size(random_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(random_bundle, tmp_path / "copy"))
    graph = copy / "score.onnx"
    graph.write_bytes(b"?" * graph.stat().st_size)
    with pytest.raises(BundleError, match=r"score\.onnx: required sha256 [0-9a-f]{64}, found "):
        lint_bundle(copy, (10, 3))


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


@pytest.mark.parametrize("version", ["11.5", "11.99", "12.0", "10.17", "99999999999999999999.1"])
def test_targets_that_nobody_knows_rules_of(version: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_target(f"tensorrt={version}")
    assert str(caught.value) == (
        "the rules of this TensorRT are not known: required 10.3 to 10.16, or 11.0 to 11.4, "
        f"found {version}"
    )


@pytest.mark.parametrize("text", ["tensorrt=\u0661\u0661.4", "tensorrt=10.3\n", "tensorrt=10"])
def test_targets_of_another_form(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_target(text)
    assert str(caught.value) == (
        f"unknown target: required tensorrt, or tensorrt=10.3, found {text!r}"
    )
