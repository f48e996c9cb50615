"""A bf16 bundle on the CPU: its own graphs, with every bf16 tensor widened to fp32.

ONNX Runtime's CPU provider has no MatMul, Add or Mul in bf16 (1.20 to 1.32), and widening changes
no weight. Activations are rounded or not:

    not rounded   what the weights and the graph compute, to be compared at fp32's tolerances
    rounded       each bf16 result to bf16 and back: what a GPU computes, up to the order of sums
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx_ir
from google.protobuf.message import DecodeError
from onnx_ir import DataType

from hermes_edge.contract import GraphName
from hermes_edge.engines import Bundle, EmbeddingTable, Engine
from hermes_edge.errors import BundleError, StorageError
from hermes_edge.export.trace import save


class WidenedBundle(Bundle):
    """An fp32 bundle over the files of a bf16 one; graphs are widened when they are opened."""

    def __init__(self, bundle: Bundle, *, rounded: bool) -> None:
        """``rounded``: whether activations are."""
        super().__init__(bundle.path, bundle.manifest.model_copy(update={"precision": "fp32"}))
        self._narrow, self._rounded = bundle, rounded

    def engine(
        self,
        name: GraphName,
        device: str = "cpu",
        threads: int = 0,
        *,
        stream: int | None = None,
        exact: bool = False,
    ) -> Engine:
        """One graph in ONNX Runtime.

        Raises:
            BundleError, EngineError, DependencyError: as of any bundle.
            StorageError: the widened graph cannot be written to the folder for temporary files.
        """
        from hermes_edge.engines.ort import OrtEngine

        spec = self.graph(name)
        file = self.manifest.graphs[name].file
        try:
            with tempfile.TemporaryDirectory(prefix="hermes-edge-") as folder:
                path = Path(folder) / file
                widen_graph(self.path / file, path, rounded=self._rounded)
                # Weights beside the graph stay mapped when the folder is gone.
                return OrtEngine(path, spec, device, threads, stream)
        except OSError as error:
            raise StorageError(
                f"cannot write a widened {file}",
                found=error.strerror,
                fix="Make room, or name another folder in the variable TMPDIR",
            ) from None

    def embeddings(self) -> EmbeddingTable:
        """The token embedding table, in bf16: exact in fp32."""
        return self._narrow.embeddings()


def widen_graph(source: Path, target: Path, *, rounded: bool) -> None:
    """Write a graph without bf16.

    Args:
        source: an ONNX file.
        target: of the new one; large weights go beside it.
        rounded: round the result of every node that gave bf16, and every bf16 input.

    Raises:
        BundleError: the source is no ONNX file.
        OSError: a file cannot be read or written.
    """
    try:
        model = onnx_ir.load(source)
    except DecodeError as error:
        raise BundleError(
            f"{source} is no ONNX graph",
            found=str(error),
            fix="Export again with: hermes-edge export CHECKPOINT -o BUNDLE",
        ) from None
    graph = model.graph
    for weight in graph.initializers.values():
        if weight.dtype == DataType.BFLOAT16 and weight.const_value is not None:
            weight.const_value = _widened(weight.const_value)
            weight.dtype = DataType.FLOAT
    for node in list(graph):
        _widen_attributes(node)
    results = [value for node in graph for value in node.outputs]
    for value in (*graph.inputs, *results):
        if value.dtype == DataType.BFLOAT16:
            value.dtype = DataType.FLOAT
            if rounded:
                _round(graph, value)
    save(model, target)


def _widened(tensor: onnx_ir.TensorProtocol) -> onnx_ir.TensorProtocol:
    return onnx_ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _widen_attributes(node: onnx_ir.Node) -> None:
    """The type that a Cast makes, and the value of a constant."""
    for name, attribute in list(node.attributes.items()):
        if name == "to" and attribute.as_int() == DataType.BFLOAT16:
            node.attributes[name] = onnx_ir.AttrInt64(name, DataType.FLOAT)
        elif attribute.type == onnx_ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype == DataType.BFLOAT16:
                node.attributes[name] = onnx_ir.AttrTensor(name, _widened(tensor))


def _round(graph: onnx_ir.Graph, value: onnx_ir.Value) -> None:
    """To bf16 and back; whoever has read the value reads what comes of it."""
    narrow = onnx_ir.node("Cast", [value], attributes={"to": DataType.BFLOAT16})
    wide = onnx_ir.node("Cast", [narrow.outputs[0]], attributes={"to": DataType.FLOAT})
    producer = value.producer()
    rounded = wide.outputs[0]
    rounded.name = f"{value.name}.rounded"
    narrow.outputs[0].name = f"{value.name}.narrow"
    rounded.type, rounded.shape = onnx_ir.TensorType(DataType.FLOAT), value.shape
    if value.is_graph_output():
        # The contract's name stays with the output.
        rounded.name, value.name = value.name, f"{value.name}.wide"
    onnx_ir.convenience.replace_all_uses_with(value, rounded, replace_graph_outputs=True)
    narrow.replace_input_with(0, value)
    if producer is None:
        graph.insert_before(graph[0], [narrow, wide])
    else:
        graph.insert_after(producer, [narrow, wide])
