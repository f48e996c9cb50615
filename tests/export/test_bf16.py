"""Bundles in bf16: what is in them, what is checked of them, and a stream over their slabs.

No processor computes in bf16, so a stand-in does: the bundle's own graphs, widened, with every bf16
result rounded as a GPU would. Staging, slabs, table and uploads are the runtime's own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from typer.testing import CliRunner

from hermes_edge.bench.against import Reference
from hermes_edge.bench.measure import Repeats
from hermes_edge.cli.app import app
from hermes_edge.cli.build import _reference
from hermes_edge.contract import GraphName, GraphSpec
from hermes_edge.engines import Bundle, CpuDevice, Engine, View, host_array, host_view
from hermes_edge.engines.backends import OrtBackend
from hermes_edge.engines.precision import compare_with_cpu
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.engines.views import Array
from hermes_edge.errors import BundleError, EngineError, ParityError, SettingsError, StorageError
from hermes_edge.export import export_checkpoint, make_random_checkpoint, verify_bundle
from hermes_edge.export.bundle import file_records
from hermes_edge.export.calls import call
from hermes_edge.export.lint import lint_bundle
from hermes_edge.export.weights import Weights
from hermes_edge.export.widened import WidenedBundle
from hermes_edge.manifest import MANIFEST_NAME, Manifest
from hermes_edge.memory.base import Scoring
from hermes_edge.planning.subject import open_subject
from hermes_edge.runtime import Runtime, SamplingParams, Session
from hermes_edge.spec import Quantization
from tests.export.conftest import with_layers

pytestmark = pytest.mark.slow

LAYERS = 10
# What every version of ONNX Runtime's CUDA provider from 1.20 on has in bf16, and TensorRT's
# parser: nothing but products, sums of biases, and what moves rows.
OPERATORS = set(
    "Add Cast Concat Gather MatMul Reshape Shape Slice Squeeze Transpose Unsqueeze".split()
)
Exported = tuple[Path, Bundle]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small LLaVA-OneVision with every graph, and its checkpoint."""
    folder = tmp_path_factory.mktemp("bf16")
    checkpoint = make_random_checkpoint(folder / "checkpoint")
    # One layer tells as much of a tower as three; three bands need ten of the decoder.
    with_layers(checkpoint, decoder=LAYERS, tower=1)
    export_checkpoint(checkpoint, folder / "bundle", precision="bf16", embedding_probe=True)
    return checkpoint, Bundle.open(folder / "bundle")


def test_graphs_are_of_bf16_where_backends_have_it(exported: Exported) -> None:
    bundle = exported[1]
    for name, record in bundle.manifest.graphs.items():
        path = bundle.path / record.file
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
        graph = model.graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for value in (*graph.input, *graph.output, *graph.value_info):
            types[value.name] = value.type.tensor_type.elem_type
        assert TensorProto.FLOAT16 not in types.values()
        narrow = {name for name, kind in types.items() if kind == TensorProto.BFLOAT16}
        used = [n.op_type for n in graph.node if narrow & {*n.input, *n.output}]
        assert set(used) <= OPERATORS, name
        matrices = [n.input for n in graph.node if n.op_type == "MatMul"]
        weights = {tensor.name for tensor in graph.initializer}
        finer = {"pool"} | ({"inv_freq"} if name != "vision" else set())
        wide = {m for pair in matrices for m in pair if m in weights and m not in narrow}
        assert wide <= finer, name


def test_weights_are_half_as_large(exported: Exported) -> None:
    bundle = exported[1]
    decoder = bundle.manifest.decoder
    planned = decoder.weight_bytes("bf16")
    stored = sum(len(t.raw_data) for t in onnx.load(bundle.path / "decoder.onnx").graph.initializer)
    assert planned == decoder.weight_bytes("fp32") // 2
    # Norms stay fp32, the rotary table is beside the weights.
    assert planned < stored < 1.05 * planned


def test_the_manifest_tells(exported: Exported) -> None:
    manifest = exported[1].manifest
    assert (manifest.precision, manifest.quantization) == ("bf16", None)
    assert {record.precision for record in manifest.graphs.values()} == {"bf16"}
    types = {t.name: t.dtype for t in manifest.graphs["decoder"].inputs}
    assert types["past_key_values.0.key"] == types["inputs_embeds"] == "bfloat16"
    outputs = {t.name: t.dtype for t in manifest.graphs["decoder"].outputs}
    assert (outputs["logits"], outputs["present.0.key"]) == ("float32", "bfloat16")


def test_parity_is_at_the_tolerance_of_fp32(exported: Exported) -> None:
    report = exported[1].manifest.parity
    assert report is not None and report.passed
    assert report.reference.endswith(
        ", checkpoint, fp32, weights rounded to bf16; the graphs widened to fp32"
    )
    assert len(report.checks) == 19
    assert max(check.tolerance for check in report.checks) == 1e-4
    error, same = report.costs
    # The weights' own errors are up to 0.2 %, those of activations as large.
    assert 0.001 < error.measured < 0.05
    assert same.unit == "of 16" and same.measured > 0


def test_a_weight_that_is_wrong_by_a_bit_is_found(exported: Exported, tmp_path: Path) -> None:
    checkpoint, bundle = exported
    target = shutil.copytree(bundle.path, tmp_path / "bundle")
    model = onnx.load(target / "decoder.onnx")
    (tensor,) = (t for t in model.graph.initializer if t.name == "layers.1.qkv_bias")
    # The last bit of bf16's eight: no tolerance of bf16's own would tell.
    bits = numpy_helper.to_array(tensor).view(np.uint16) ^ 1
    tensor.raw_data = bits.tobytes()
    onnx.save(model, target / "decoder.onnx")
    manifest = bundle.manifest.model_copy(update={"files": file_records(target)})
    (target / MANIFEST_NAME).write_text(manifest.to_json())
    with pytest.raises(ParityError, match=r"logits: required at most 0\.0001 of the maximum, fou"):
        verify_bundle(target, checkpoint)


def test_the_bundle_is_compared_with_itself_where_there_is_no_checkpoint(
    exported: Exported,
) -> None:
    assert verify_bundle(exported[1].path).passed


@pytest.mark.parametrize("version", [(10, 3), (11, 4)])
def test_tensorrt_would_take_it(exported: Exported, version: tuple[int, int]) -> None:
    findings = lint_bundle(exported[1].path, version)
    # Rows of 2 heads of 16 in 16 bits are too narrow for TensorRT, whatever the type.
    assert [(f.graph, f.rule) for f in findings] == [
        ("slabs", "required rows of a multiple of 256 bytes, found 64")
    ]


def test_the_table_is_the_checkpoint_s_rounded(exported: Exported) -> None:
    checkpoint, bundle = exported
    name = "language_model.embed_tokens.weight"
    rounded = Weights.open(checkpoint).load(name, torch.bfloat16)
    rows = bundle.embeddings().lookup([7, 3, 511, 7])
    assert rows.dtype == ml_dtypes.bfloat16
    found = rows.astype(np.float32)
    np.testing.assert_array_equal(found, rounded[[7, 3, 511, 7]].to(torch.float32).numpy())


def test_the_processor_is_refused(exported: Exported) -> None:
    bundle = exported[1]
    with pytest.raises(EngineError) as caught:
        Runtime.load(bundle.path)
    assert str(caught.value) == (
        f"ONNX Runtime cannot compute {bundle.path / 'decoder.onnx'} on the CPU: required fp32 or "
        "fp16, or a CUDA device, found bf16. Export with --dtype fp32 or fp16, or run it on a "
        "GPU: --device cuda:0"
    )


def test_integers_beside_bf16_are_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        export_checkpoint(
            exported[0], tmp_path / "b", precision="bf16", quantization=Quantization(8, None)
        )
    assert str(caught.value) == (
        "integer weights cannot stand beside bf16: required fp32 or fp16, found bf16. "
        "Export with --compute fp16"
    )
    assert not (tmp_path / "b").exists()
    with pytest.raises(SettingsError, match=r"^integer weights cannot stand beside bf16: "):
        open_subject(str(exported[0]), "bf16", quantization=Quantization(4, 32))


def test_no_room_for_a_widened_graph(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hermes_edge.export.widened.save", full)
    with pytest.raises(
        StorageError,
        match=r"^cannot write a widened decoder\.onnx: found No space left on device\. "
        r"Make room, or name another folder in the variable TMPDIR$",
    ):
        WidenedBundle(exported[1], rounded=False).engine("decoder")


def test_a_graph_that_is_no_onnx(exported: Exported, tmp_path: Path) -> None:
    target = shutil.copytree(exported[1].path, tmp_path / "bundle")
    (target / "score.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(BundleError) as caught:
        WidenedBundle(Bundle(target, exported[1].manifest), rounded=False).engine("score")
    assert str(caught.value).startswith(f"{target / 'score.onnx'} is no ONNX graph: found ")
    assert str(caught.value).endswith(
        ". Export again with: hermes-edge export CHECKPOINT -o BUNDLE"
    )


def narrowed(array: Array) -> Array:
    """Rounded to bf16."""
    rounded: Array = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    return rounded


def test_rounding_is_that_of_every_result(exported: Exported) -> None:
    """Queries and keys of the probe graph, step by step as the graph writes them."""
    bundle = exported[1]
    embeds = np.random.default_rng(1).normal(size=(5, bundle.manifest.decoder.embedding_width))
    positions = np.broadcast_to(np.arange(5), (LAYERS, 5))
    inputs = {"inputs_embeds": embeds, "position_ids": positions}
    exact, rounded = (
        call(WidenedBundle(bundle, rounded=flag).engine("embedding_probe"), inputs)
        for flag in (False, True)
    )
    for name, values in rounded.items():
        np.testing.assert_array_equal(values, narrowed(values))
        assert not np.array_equal(exact[name], narrowed(exact[name]))
        difference = np.abs(values - exact[name]).max() / np.abs(exact[name]).max()
        assert 2**-10 < difference < 2**-6


class RoundingEngine:
    """An engine in bf16: the widened graph, on copies of what is bound."""

    def __init__(self, graph: GraphSpec, widened: Engine) -> None:
        self.graph, self._widened = graph, widened

    def run(self, inputs: Mapping[str, View], outputs: Mapping[str, View]) -> None:
        spec = self._widened.graph.tensors()
        given = {n: host_array(v).astype(spec[n].dtype) for n, v in inputs.items()}
        taken = {n: np.empty(v.shape, spec[n].dtype) for n, v in outputs.items()}
        self._widened.run(
            {n: host_view(a) for n, a in given.items()}, {n: host_view(a) for n, a in taken.items()}
        )
        for name, array in taken.items():
            assert outputs[name].dtype == self.graph.tensors()[name].dtype
            host_array(outputs[name])[...] = array


class RoundingBackend:
    """A device in host memory that computes in bf16."""

    def __init__(self) -> None:
        self.device = CpuDevice()

    def engine(self, bundle: Bundle, name: GraphName) -> Engine:
        widened = WidenedBundle(bundle, rounded=True).engine(name, threads=1)
        return RoundingEngine(bundle.graph(name), widened)


def pictures(manifest: Manifest, count: int) -> Array:
    side = manifest.vision.image_size if manifest.vision else 0
    generator = np.random.default_rng(3)
    return generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_addresses_of_bf16_are_bound(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction alone has kernels on the CPU: so the binding itself is run in bf16."""
    bundle = exported[1]
    monkeypatch.setattr("hermes_edge.engines.ort._check_cpu", lambda path, graph: None)
    generator, decoder = np.random.default_rng(2), bundle.manifest.decoder
    keys, values = generator.normal(size=(2, 20, decoder.kv_heads, decoder.head_size))
    inputs = {
        "keys": keys,
        "values": values,
        "keep": np.arange(0, 20, 2),
        "keep_delta": -np.arange(10) // 2,
        "fold": np.arange(1, 20, 3),
        "fold_delta": -np.arange(7) * 5,
        "fold_weight": generator.dirichlet(np.ones(7)),
    }
    bound = call(bundle.engine("compact"), inputs, kept=11)
    stand_in = RoundingBackend().engine(bundle, "compact")
    for name, rows in call(stand_in, inputs, kept=11).items():
        assert bound[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(bound[name], rows)


SHAPE: dict[str, Any] = {"budget_tokens": 96, "chunk_frames": 2, "reserve_tokens": 96}


def slabs(session: Session) -> list[Array]:
    store = session._parts.store
    layers = range(len(store.rows))
    return [host_array(view) for layer in layers for view in store.committed(layer)]


@pytest.mark.parametrize("scoring", ["forward", "embedding"])
def test_a_stream_over_slabs_of_bf16_is_that_over_wide_slabs(
    exported: Exported, scoring: Scoring
) -> None:
    """Every number that a slab holds is one of bf16, so both streams compute the same."""
    bundle = exported[1]
    wide = Runtime(WidenedBundle(bundle, rounded=True), OrtBackend(CpuDevice(), 1))
    narrow = Runtime(bundle, RoundingBackend())
    frames = pictures(bundle.manifest, 14)
    sessions = []
    for runtime in (wide, narrow):
        session = runtime.session(**SHAPE, scoring=scoring)
        for index, frame in enumerate(frames):
            session.feed(frame, at=float(index))
        sessions.append(session)
    first, second = sessions
    assert second.timings().compactions > 1
    assert 2 * second.memory().slab_bytes == first.memory().slab_bytes
    for ours, theirs in zip(first.rows(), second.rows(), strict=True):
        np.testing.assert_array_equal(ours.position, theirs.position)
        np.testing.assert_array_equal(ours.frame, theirs.frame)
    before = [slab.tobytes() for slab in slabs(second)]
    sampling = SamplingParams(max_new_tokens=6)
    answers = [session.ask("What is it now?", sampling).token_ids for session in sessions]
    assert answers[0] == answers[1] and len(answers[0]) > 0
    for wide_slab, narrow_slab in zip(slabs(first), slabs(second), strict=True):
        assert (wide_slab.dtype.name, narrow_slab.dtype.name) == ("float32", "bfloat16")
        np.testing.assert_array_equal(wide_slab, narrow_slab.astype(np.float32))
    assert [slab.tobytes() for slab in slabs(second)] == before


def test_visual_tokens_of_bf16_can_be_fed_again(exported: Exported) -> None:
    bundle = exported[1]
    runtime = Runtime(bundle, RoundingBackend())
    frames = pictures(bundle.manifest, 4)
    tokens = runtime.encode([*frames])
    assert tokens.dtype == ml_dtypes.bfloat16
    fed, given = runtime.session(**SHAPE), runtime.session(**SHAPE)
    for index, frame in enumerate(frames):
        fed.feed(frame, at=float(index))
    given.feed_tokens(tokens, [0.0, 1.0, 2.0, 3.0])
    for ours, theirs in zip(slabs(fed), slabs(given), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_transformers_takes_the_same_rows(exported: Exported) -> None:
    """What ``bench --against transformers`` asks, of rows in bf16."""
    checkpoint, bundle = exported
    session = Runtime(bundle, RoundingBackend()).session(**SHAPE, policy="window")
    for index, frame in enumerate(pictures(bundle.manifest, 4)):
        session.feed(frame, at=float(index))
    model = Reference.open(checkpoint, bundle).load(threads=1)
    figures = model.compare(session, [5, 6, 7], 2, Repeats(questions=1, chunks=1, warmup=0))
    assert figures.memory_rows == len(session.rows()[0])
    # Each side rounds at places of its own; rows in a wrong order would be as far as the logits.
    assert 0 < figures.first_logits_difference < 0.05 * figures.first_logits_largest


@pytest.mark.parametrize("name", ["vision", "decoder", "score", "compact", "embedding_probe"])
def test_an_engine_in_bf16_is_compared_with_the_widened_graph(
    exported: Exported, name: GraphName
) -> None:
    bundle = exported[1]
    limits = Limits(capacity_rows=200, pass_rows=64, probe_rows=32, frames=2)
    backend, reference = RoundingBackend(), WidenedBundle(bundle, rounded=True)
    check = compare_with_cpu(
        bundle, name, limits, backend.device, lambda n: backend.engine(bundle, n), reference
    )
    # The stand-in is the reference itself, but for inputs that are rounded before they come in.
    assert check.name == name and check.passed
    assert check.tolerance == {"score": 1e-2, "compact": 1e-2}.get(name, 4e-2)


def test_a_build_s_precision_check_is_against_the_widened_graphs(exported: Exported) -> None:
    reference = _reference(exported[1])
    assert isinstance(reference, WidenedBundle)
    assert reference.manifest.precision == "fp32"
    assert reference.engine("score").graph.inputs[0].dtype == "float32"
    # Every other bundle is its own reference.
    assert _reference(reference) is reference


def cli(*args: object) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_line_tells_what_bf16_costs(exported: Exported) -> None:
    code, stdout, stderr = cli("inspect", exported[1].path)
    assert (code, stderr) == (0, "")
    assert "matrices bf16\n" in stdout
    assert "cost of the rounded weights, beside the original" in stdout


def test_a_plan_in_bf16_is_one_in_fp16(exported: Exported) -> None:
    options = ("--device", "orin-nano-8gb", "--budget", 512, "--json")
    plans = [
        json.loads(cli("plan", source, *options, *form)[1])
        for source, form in (
            (exported[1].path, ()),
            (exported[0], ("--dtype", "bf16", "--chunk-frames", 16)),
            (exported[0], ("--dtype", "fp16", "--chunk-frames", 16)),
        )
    ]
    assert [plan["precision"] for plan in plans] == ["bf16", "bf16", "fp16"]
    assert plans[1]["bytes"] == plans[2]["bytes"]
    # Of a checkpoint the template's rows are not known.
    for share in ("decoder weights", "vision weights"):
        assert plans[0]["bytes"][share] == plans[1]["bytes"][share]


def test_a_plan_in_bf16_for_a_processor_is_refused(exported: Exported) -> None:
    assert cli("plan", exported[1].path, "--device", "this") == (
        2,
        "",
        "error: ONNX Runtime cannot compute in bf16 on this machine's processor: required fp32 or "
        "fp16, or --device of a GPU, found bf16\n",
    )


def test_integers_take_fp32_or_fp16_beside_them(exported: Exported, tmp_path: Path) -> None:
    form = ("--dtype", "int8", "--compute", "bf16")
    code, _, stderr = cli("export", exported[0], "-o", tmp_path / "b", *form)
    assert code == 2
    assert "'bf16' is not one of 'fp32', 'fp16'" in stderr
