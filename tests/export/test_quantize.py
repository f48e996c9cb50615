"""Integer weights: their arithmetic, their graphs, and what they cost."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from hermes_edge.engines.ort import Products
from hermes_edge.engines.views import Array
from hermes_edge.errors import ParityError, SettingsError
from hermes_edge.export import export_checkpoint, verify_bundle
from hermes_edge.export.bundle import file_records
from hermes_edge.export.config import read_config
from hermes_edge.export.lint import lint_graph
from hermes_edge.export.quantize import check_quantization, dequantize, quantize
from hermes_edge.manifest import MANIFEST_NAME, Manifest, read_manifest
from hermes_edge.runtime import Runtime, SamplingParams
from hermes_edge.spec import Precision, Quantization

pytestmark = pytest.mark.slow

INT8 = Quantization(8, None)
INT4 = Quantization(4, 32)


def matrix(rows: int, columns: int, seed: int = 0) -> Array:
    """Columns of very different size, one of them empty."""
    generator = np.random.default_rng(seed)
    sizes = 10.0 ** generator.uniform(-4, 1, columns)
    sizes[1] = 0
    return (generator.normal(size=(rows, columns)) * sizes).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("columns", [7, 8200])
def test_int8_is_within_half_a_step(precision: Precision, columns: int) -> None:
    weights = matrix(96, columns)
    integers, scales = quantize(weights, INT8, precision)
    assert integers.dtype == np.int8
    assert (integers.shape, scales.shape) == (weights.shape, (columns,))
    assert scales.dtype == (np.float16 if precision == "fp16" else np.float32)
    assert (scales > 0).all()
    assert np.abs(integers).max() == 127 and not integers[:, 1].any()
    # A scale that was rounded down to half precision may leave the largest value outside.
    slack = 127 * np.spacing(scales).astype(np.float32)
    error = np.abs(dequantize(integers, scales) - weights)
    assert (error <= scales.astype(np.float32) / 2 + slack).all()


@pytest.mark.parametrize("block", [32, 128])
def test_int4_takes_the_clipping_with_the_least_error(block: int) -> None:
    weights = matrix(256, 9)
    integers, scales = quantize(weights, Quantization(4, block), "fp32")
    assert integers.dtype == ml_dtypes.int4
    assert scales.shape == (256 // block, 9) and (scales > 0).all()
    for first in range(0, 256, block):
        for column in range(9):
            values = weights[first : first + block, column].astype(np.float64)
            found = dequantize(integers, scales)[first : first + block, column]
            errors = []
            for share in (1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7):
                step = max(share * np.abs(values).max() / 7, 1e-30)
                rounded = np.clip(np.round(values / step), -8, 7) * step
                errors.append(np.square(rounded - values).sum())
            assert np.square(found - values).sum() == pytest.approx(min(errors), rel=1e-4)


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        (
            Quantization(4, 64),
            "unknown quantization: required int8, or int4 in blocks of 32 or 128, "
            "found int4, blocks of 64",
        ),
        (
            Quantization(8, 32),
            "unknown quantization: required int8, or int4 in blocks of 32 or 128, "
            "found int8, blocks of 32",
        ),
        (
            INT4,
            "blocks of 32 do not fit the decoder's matrices: required inputs that are multiples "
            "of 32, found 48, 80. Export with --block 32, or --dtype int8",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    quantization: Quantization, message: str, qwen2: Path
) -> None:
    with pytest.raises(SettingsError) as caught:
        check_quantization(quantization, read_config(qwen2).decoder, "fp32")
    assert str(caught.value) == message


@pytest.fixture(scope="module", params=[(INT8, "fp16"), (INT4, "fp32")], ids=["int8", "int4"])
def quantized(
    request: pytest.FixtureRequest, llava: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest]:
    """The tiny LLaVA-OneVision, exported and verified; in half precision for static decoding."""
    quantization, precision = request.param
    target = tmp_path_factory.mktemp("quantized") / "llava"
    manifest = export_checkpoint(
        llava,
        target,
        precision=precision,
        quantization=quantization,
        static_decode=precision == "fp16",
    )
    return target, manifest


def test_the_graph_holds_integers(quantized: tuple[Path, Manifest]) -> None:
    bundle, manifest = quantized
    quantization, decoder = manifest.quantization, manifest.decoder
    assert quantization is not None
    graph = onnx.load(bundle / "decoder.onnx")
    stored = {4: TensorProto.INT4, 8: TensorProto.INT8}[quantization.bits]
    integers = [t for t in graph.graph.initializer if t.data_type == stored]
    assert sorted(tuple(t.dims) for t in integers) == sorted(decoder.matrices())
    assert graph.opset_import[0].version == manifest.graphs["decoder"].opset
    assert manifest.graphs["decoder"].opset == {8: 20, 4: 21}[quantization.bits]
    others = [graph for name, graph in manifest.graphs.items() if name != "decoder"]
    assert {(graph.opset, graph.quantization) for graph in others} == {(20, None)}
    # Nothing is kept beside the integers: weights are what the arithmetic of a plan says.
    weights = sum(len(t.raw_data) for t in graph.graph.initializer)
    planned = decoder.weight_bytes(manifest.precision, quantization)
    assert planned <= weights < 1.05 * planned


def test_parity_is_with_equally_rounded_weights(quantized: tuple[Path, Manifest]) -> None:
    report = quantized[1].parity
    assert report is not None and report.passed
    assert f"decoder's matrices rounded to {quantized[1].quantization}" in report.reference
    assert len(report.checks) == (19 if quantized[1].static_decode else 17)
    strictest = {"fp32": 1e-4, "fp16": 5e-3}[quantized[1].precision]
    assert max(check.tolerance for check in report.checks) == strictest


def test_costs_are_those_against_the_original(quantized: tuple[Path, Manifest]) -> None:
    bundle, manifest = quantized
    assert manifest.parity is not None and manifest.quantization is not None
    error, same = manifest.parity.costs
    assert error.name == "logits, root mean square error"
    # The weights' own errors are 0.4 % and 9 %; random layers add to them.
    least, most = {8: (0.001, 0.1), 4: (0.03, 1.0)}[manifest.quantization.bits]
    assert least < error.measured < most
    assert same.unit == "of 16" and 0 <= same.measured <= 16
    assert read_manifest(bundle) == manifest


def test_a_quantized_bundle_answers(quantized: tuple[Path, Manifest]) -> None:
    runtime = Runtime.load(quantized[0], threads=1)
    side = quantized[1].vision.image_size if quantized[1].vision else 0
    frames = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), dtype=np.uint8)
    with runtime.session(budget_tokens=128, chunk_frames=2) as session:
        for index, frame in enumerate(frames):
            session.feed(frame, at=float(index))
        params = SamplingParams(max_new_tokens=4)
        first = session.ask("What is it now?", params)
        assert session.ask("What is it now?", params).token_ids == first.token_ids


def test_wrong_scales_are_found(
    llava: Path, quantized: tuple[Path, Manifest], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for path in quantized[0].iterdir():
        (bundle / path.name).write_bytes(path.read_bytes())
    model = onnx.load(bundle / "decoder.onnx")
    (scales,) = (t for t in model.graph.initializer if t.name == "layers.4.down.scales")
    array = numpy_helper.to_array(scales)
    scales.CopyFrom(numpy_helper.from_array(np.roll(array, 1, axis=-1), scales.name))
    onnx.save(model, bundle / "decoder.onnx")
    manifest = read_manifest(bundle).model_copy(update={"files": file_records(bundle)})
    (bundle / MANIFEST_NAME).write_text(manifest.to_json())
    with pytest.raises(
        ParityError, match=r"keys: required at most 0\.0\d+ of the maximum, found 0"
    ):
        verify_bundle(bundle, llava)


@pytest.mark.parametrize("version", [(10, 3), (11, 4)])
def test_tensorrt_would_take_it(quantized: tuple[Path, Manifest], version: tuple[int, int]) -> None:
    assert lint_graph(quantized[0] / "decoder.onnx", version) == []


def test_every_product_is_fused(quantized: tuple[Path, Manifest], tmp_path: Path) -> None:
    """What ONNX Runtime makes of the graph, with the optimizers that the engine asks for."""
    path, optimized = quantized[0] / "decoder.onnx", tmp_path / "optimized.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 3
    without = Products(quantized=True, exact=False).without
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=without
    )
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    assert kinds.count("MatMulNBits") == len(quantized[1].decoder.matrices())
    assert "DequantizeLinear" not in kinds
