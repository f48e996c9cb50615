"""Plans: built, kept, checked, loaded and run, in every version whose names are known."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.contract import GraphName, compact_graph, decoder_graph, score_graph
from hermes_edge.engines import Bundle
from hermes_edge.engines.backends import TensorRTBackend, open_backend
from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.engines.trt.api import import_tensorrt
from hermes_edge.engines.trt.build import build_bundle
from hermes_edge.engines.trt.builder import BuildOptions
from hermes_edge.engines.trt.engine import TensorRTEngine
from hermes_edge.engines.trt.folder import PlanFolder, place_of
from hermes_edge.engines.trt.profiles import Limits, profiles_for
from hermes_edge.engines.trt.record import Place, this_system
from hermes_edge.errors import (
    BundleError,
    DependencyError,
    EngineError,
    HermesEdgeError,
    SettingsError,
    StorageError,
)
from hermes_edge.export.memory_graphs import Compact
from hermes_edge.export.trace import save, trace
from hermes_edge.manifest import read_manifest
from hermes_edge.runtime import Runtime, SamplingParams
from hermes_edge.shipped import TINY_BUNDLE
from hermes_edge.synthetic import draw_stream, make_stream

LIMITS = Limits(capacity_rows=13 + 128 + 32 + 96, pass_rows=96, probe_rows=96, frames=2)


class Watcher:
    """Remembers what a build reports."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def graph(self, name: GraphName) -> Watcher:
        self.events.append(("graph", name))
        return self

    def phase_started(self, phase: str, steps: int) -> None:
        self.events.append(("started", phase, str(steps)))

    def step_done(self, phase: str, step: int) -> None:
        self.events.append(("step", phase, str(step)))

    def phase_finished(self, phase: str) -> None:
        self.events.append(("finished", phase))


Build = Callable[..., Path]


@pytest.fixture
def build(tensorrt: Any, device: CudaDevice, bundle: Bundle) -> Build:
    def call(watcher: Watcher | None = None, **options: Any) -> Path:
        watcher = watcher or Watcher()
        here = place_of(tensorrt, device)
        return build_bundle(tensorrt, bundle, here, LIMITS, BuildOptions(**options), watcher.graph)

    return call


def test_profiles_of_the_decoder(bundle: Bundle) -> None:
    spec = bundle.manifest.decoder
    passes, single = profiles_for(decoder_graph(spec, "fp32"), LIMITS)
    assert passes["inputs_embeds"].most == (96, 192)
    assert passes["position_ids"].least == (10, 1)
    assert passes["past_key_values.7.key"].most == (269, 2, 64)
    assert passes["past_key_values.7.key"].least == (1, 2, 64)
    assert passes["past_visible"].least == passes["past_visible"].most == (1,)
    assert single["inputs_embeds"].least == single["inputs_embeds"].most == (1, 192)
    assert passes["logit_rows"].most == (1,)


def test_profiles_never_hold_an_empty_tensor(bundle: Bundle) -> None:
    for name in bundle.manifest.graphs:
        for profile in profiles_for(bundle.graph(name), LIMITS):
            for bounds in profile.values():
                assert min(bounds.least) >= 1
                assert all(
                    a <= b <= c
                    for a, b, c in zip(bounds.least, bounds.usual, bounds.most, strict=True)
                )


def test_rows_that_are_scored_and_compacted_fill_a_slab(bundle: Bundle) -> None:
    spec = bundle.manifest.decoder
    (score,) = profiles_for(score_graph(spec, "fp32"), LIMITS)
    (compact,) = profiles_for(compact_graph(spec, "fp32"), LIMITS)
    assert score["keys"].most == compact["keys"].most == (269, 2, 64)
    assert compact["keep"].most == compact["fold"].most == (269,)


def test_a_build_is_told_step_by_step_and_recorded(
    build: Build, tensorrt: Any, bundle: Bundle
) -> None:
    watcher = Watcher()
    folder = build(watcher, workspace_bytes=1 << 20)
    assert folder == bundle.path / "engines" / f"sm87-trt{tensorrt.__version__}-{this_system()}"
    graphs = [event[1] for event in watcher.events if event[0] == "graph"]
    assert graphs == [*bundle.manifest.graphs]
    assert watcher.events[1:4] == [
        ("started", "Building", "2"),
        ("step", "Building", "0"),
        ("finished", "Building"),
    ]
    record = json.loads((folder / "build.json").read_text())
    assert record["place"]["gpu"] == "Orin"
    assert record["plans"]["decoder"]["flags"] == ["workspace=1048576"]
    assert len(record["plans"]["decoder"]["profiles"]) == 2
    for made in tensorrt.builds:
        assert (made["workspace"], made["level"]) == (1 << 20, 3)
        # Otherwise float32 would have ten bits of mantissa.
        assert made["cleared"] == ["tf32"]
    assert not list(bundle.path.glob("engines/*.part"))


def test_the_timing_cache_is_carried_from_build_to_build(build: Build, tensorrt: Any) -> None:
    build()
    build(low_memory=True)
    caches = [made["cache"] for made in tensorrt.builds]
    assert caches == [b"+" * count for count in range(len(caches))]
    assert tensorrt.builds[-1]["level"] == 2


def ask(runtime: Runtime) -> tuple[list[str], bytes]:
    """Answers about a stream, and the keys that the memory ends with."""
    frames = draw_stream(make_stream(1_000_000_000, 20))
    answers = []
    with runtime.session(
        budget_tokens=128,
        chunk_frames=2,
        reserve_tokens=96,
        workspace_bytes=4 * 4 * 269 * 32,
    ) as session:
        for index, frame in enumerate(frames):
            session.feed(frame, at=float(index))
            if index % 7 == 6:
                sampling = SamplingParams(max_new_tokens=6)
                answers.append(session.ask("What is it now?", sampling).text)
        rows = b"".join(layer.position.tobytes() for layer in session.rows())
    return answers, rows


def test_a_session_on_plans_is_that_on_the_cpu(
    build: Build, tensorrt: Any, device: CudaDevice, bundle: Bundle
) -> None:
    build()
    planned = Runtime(bundle, TensorRTBackend(device, tensorrt))
    assert ask(planned) == ask(Runtime.load(bundle.path))


def test_slabs_on_the_device_are_planned_to_the_byte(
    build: Build, tensorrt: Any, device: CudaDevice, bundle: Bundle
) -> None:
    build()
    runtime = Runtime(bundle, TensorRTBackend(device, tensorrt))
    before = device.allocated_bytes
    session = runtime.session(
        budget_tokens=128, chunk_frames=2, reserve_tokens=96, workspace_bytes=4 * 4 * 269 * 32
    )
    memory = session.memory()
    assert memory.slab_bytes == 10 * 2 * 269 * 2 * 64 * 4
    assert device.allocated_bytes - before >= memory.slab_bytes + memory.spare_bytes


def test_a_longer_call_than_the_plan_was_built_for(
    build: Build, tensorrt: Any, device: CudaDevice, bundle: Bundle
) -> None:
    build()
    runtime = Runtime(bundle, TensorRTBackend(device, tensorrt))
    with pytest.raises(EngineError) as caught:
        runtime.session(budget_tokens=512, chunk_frames=2, reserve_tokens=96)
    text = str(caught.value)
    assert text.startswith("the plan of decoder is built for smaller sessions: required ")
    assert "past_key_values.0.key [1, 2, 64] to [269, 2, 64], found [" in text
    assert text.endswith(
        "Build it again with a larger --budget, --chunk-frames or --reserve-tokens, or ask for less"
    )


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((folder / "build.json").read_text())
    edit(document)
    (folder / "build.json").write_text(json.dumps(document))


def load(bundle: Bundle, tensorrt: Any, device: CudaDevice, name: GraphName = "score") -> None:
    TensorRTBackend(device, tensorrt).engine(bundle, name)


def test_every_mismatch_is_named_at_once(
    build: Build, tensorrt: Any, device: CudaDevice, bundle: Bundle
) -> None:
    folder = build()

    def edit(document: dict[str, Any]) -> None:
        document["place"] |= {"compute_capability": "8.9", "gpu": "RTX 4090"}
        document["place"]["tensorrt"] = "9.9.9"
        document["plans"]["score"]["onnx_sha256"] = "0" * 64

    edited(folder, edit)
    with pytest.raises(BundleError) as caught:
        load(bundle, tensorrt, device)
    digest = next(f.sha256 for f in bundle.manifest.files if f.path == "score.onnx")
    assert str(caught.value) == (
        f"{folder} cannot be used here: TensorRT: required {tensorrt.__version__}, found 9.9.9; "
        "compute capability: required 8.7, found 8.9; GPU: required Orin, found RTX 4090; "
        f"score.onnx: required sha256 {digest}, found {'0' * 64}. "
        f"Build it on this machine: hermes-edge build {bundle.path}"
    )


def test_a_plan_cut_short(build: Build, tensorrt: Any, device: CudaDevice, bundle: Bundle) -> None:
    folder = build()
    plan = (folder / "score.plan").read_bytes()
    (folder / "score.plan").write_bytes(plan[:-3])
    with pytest.raises(BundleError) as caught:
        load(bundle, tensorrt, device)
    assert f"score.plan: required {len(plan)} bytes, found {len(plan) - 3}" in str(caught.value)
    (folder / "score.plan").write_bytes(plan[:-3] + b"???")
    with pytest.raises(BundleError, match=r"score.plan: required sha256 "):
        load(bundle, tensorrt, device)
    (folder / "score.plan").unlink()
    with pytest.raises(BundleError, match=r"score.plan: required \d+ bytes, found no file"):
        load(bundle, tensorrt, device)


def test_a_record_that_is_damaged_or_missing(
    build: Build, tensorrt: Any, device: CudaDevice, bundle: Bundle
) -> None:
    folder = build()
    mend = f"Build it on this machine: hermes-edge build {bundle.path}"
    (folder / "build.json").write_text("{")
    with pytest.raises(
        BundleError, match=r"build.json is damaged: required what hermes-edge build writes, found "
    ) as damaged:
        load(bundle, tensorrt, device)
    assert str(damaged.value).endswith(mend)
    (folder / "build.json").unlink()
    with pytest.raises(BundleError) as missing:
        load(bundle, tensorrt, device)
    assert str(missing.value) == (
        f"{folder} has no build.json: required plans built by hermes-edge build. {mend}"
    )


def test_a_plan_outside_the_folder_is_refused(
    build: Build, tensorrt: Any, device: CudaDevice, bundle: Bundle
) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["plans"]["score"]["file"] = "../score.plan"

    edited(build(), edit)
    with pytest.raises(BundleError, match=r"\.\./score\.plan: required a file of this folder"):
        load(bundle, tensorrt, device)


def test_plans_of_another_machine(build: Build, tensorrt: Any, bundle: Bundle) -> None:
    folder = build()
    here = Place(tensorrt="10.3.0", compute_capability="8.9", gpu="RTX 4090", system="linux-x86_64")
    with pytest.raises(BundleError) as caught:
        PlanFolder.open(bundle, here)
    assert str(caught.value) == (
        f"{bundle.path} has no plans for this machine: required sm89-trt10.3.0-linux-x86_64, found "
        f"{folder.name}. Build them here: hermes-edge build {bundle.path}"
    )


def test_a_plan_that_tensorrt_refuses(bundle: Bundle, tensorrt: Any, device: CudaDevice) -> None:
    graph = bundle.graph("score")
    with pytest.raises(EngineError) as caught:
        TensorRTEngine(tensorrt, b"not a plan", graph, profiles_for(graph, LIMITS), device)
    assert str(caught.value) == (
        "TensorRT cannot load the plan of score: found magic tag does not match. "
        "Build it again with: hermes-edge build BUNDLE"
    )


def test_a_plan_of_another_graph(bundle: Bundle, tensorrt: Any, device: CudaDevice) -> None:
    graph = bundle.graph("score")
    plan = json.dumps({"onnx": str(bundle.path / "compact.onnx"), "shapes": [{}]}).encode()
    with pytest.raises(EngineError) as caught:
        TensorRTEngine(tensorrt, plan, graph, profiles_for(graph, LIMITS), device)
    text = str(caught.value)
    assert text.startswith("the plan of score does not fit the contract: ")
    assert "fold: required none, found ('int64', 1)" in text
    assert text.endswith("Build it again with: hermes-edge build BUNDLE")


def test_a_graph_that_the_parser_refuses(build: Build, tensorrt: Any, bundle: Bundle) -> None:
    folder = build()
    kept = (folder / "build.json").read_text()
    tensorrt.refusal = ["K is too large", "and sorted is 0"]
    with pytest.raises(EngineError) as caught:
        build()
    short = ".".join(tensorrt.__version__.split(".")[:2])
    assert str(caught.value) == (
        f"TensorRT {tensorrt.__version__} cannot parse vision.onnx: found TopK here: K is too "
        "large; TopK here: and sorted is 0. See which rule: hermes-edge verify BUNDLE --target "
        f"tensorrt={short}"
    )
    # Plans that were there stay.
    assert (folder / "build.json").read_text() == kept
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_build_that_fails(tensorrt: Any, tmp_path: Path) -> None:
    from hermes_edge.engines.trt.builder import build_plan

    watcher = Watcher()
    with pytest.raises(EngineError) as caught:
        build_plan(tensorrt, tmp_path / "impossible.onnx", [{}], BuildOptions(), b"", watcher)
    assert str(caught.value) == (
        "TensorRT cannot build impossible.onnx: found no kernel. "
        "If memory was short: --low-memory, a smaller --workspace, --budget or --chunk-frames"
    )


def test_no_gpu(build: Build, tensorrt: Any, bundle: Bundle, device: CudaDevice) -> None:
    tensorrt.has_gpu = False
    for call, what in (
        (build, "builder"),
        (
            lambda: TensorRTEngine(tensorrt, b"", bundle.graph("score"), [], device),
            "runtime",
        ),
    ):
        with pytest.raises(EngineError) as caught:
            call()
        assert str(caught.value) == (
            f"TensorRT cannot make a {what}: there is no usable GPU: found no reason given. "
            "See what is wrong with: hermes-edge doctor"
        )


def test_rows_that_cannot_be_bound(tensorrt: Any, device: CudaDevice, random_bundle: Path) -> None:
    with pytest.raises(BundleError) as caught:
        build_bundle(
            tensorrt,
            Bundle.open(random_bundle),
            place_of(tensorrt, device),
            LIMITS,
            BuildOptions(),
            Watcher().graph,
        )
    assert str(caught.value) == (
        "TensorRT cannot be bound to the rows of this model: required a multiple of 256 bytes, "
        "found 128. Run it in ONNX Runtime"
    )


def test_a_folder_that_cannot_be_written(build: Build, bundle: Bundle) -> None:
    (bundle.path / "engines").write_text("a file in the way")
    with pytest.raises(
        StorageError, match=r"^cannot write .*: found (Not a directory|File exists)$"
    ):
        build()


def test_tensorrt_that_is_missing_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for content, found in (
        ("raise ImportError('libnvinfer.so.10 is missing')", "libnvinfer.so.10 is missing"),
        ("__version__ = '8.6.1'", "8.6.1"),
    ):
        (tmp_path / "tensorrt.py").write_text(content)
        with pytest.raises(DependencyError) as caught:
            import_tensorrt()
        assert f"found {found}. " in str(caught.value)
    del sys.modules["tensorrt"]


@pytest.mark.parametrize(
    ("device_name", "backend", "kind", "text"),
    [
        (
            "cpu",
            "torch",
            SettingsError,
            "unknown backend: required onnxruntime or tensorrt, found 'torch'",
        ),
        (
            "cpu",
            "tensorrt",
            SettingsError,
            "TensorRT runs on NVIDIA GPUs: required device cuda or cuda:N, found cpu",
        ),
        ("gpu", "onnxruntime", SettingsError, "unknown device: "),
    ],
)
def test_backends_that_cannot_be_had(
    device_name: str, backend: str, kind: type[HermesEdgeError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        open_backend(device_name, backend)
    assert str(caught.value).startswith(text)


@pytest.fixture(scope="module")
def compact_in_bf16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compact graph of hermes-tiny, as an export in bf16 writes it."""
    path = tmp_path_factory.mktemp("bf16") / "compact.onnx"
    decoder = read_manifest(TINY_BUNDLE).decoder
    save(trace(Compact(decoder), compact_graph(decoder, "bf16"), 20), path)
    return path


def test_a_plan_in_bf16_fits_its_contract_alone(
    compact_in_bf16: Path, tensorrt: Any, device: CudaDevice, bundle: Bundle
) -> None:
    decoder = bundle.manifest.decoder
    for precision in ("bf16", "fp16"):
        graph = compact_graph(decoder, precision)
        profiles = profiles_for(graph, LIMITS)
        shapes = [{name: [r.least, r.usual, r.most] for name, r in p.items()} for p in profiles]
        plan = json.dumps({"onnx": str(compact_in_bf16), "shapes": shapes}).encode()
        if precision == "bf16":
            engine = TensorRTEngine(tensorrt, plan, graph, profiles, device)
            assert engine.graph.outputs[0].dtype == "bfloat16"
            continue
        with pytest.raises(EngineError) as caught:
            TensorRTEngine(tensorrt, plan, graph, profiles, device)
        faults = "; ".join(
            f"{name}: required ('float16', 3), found ('bfloat16', 3)"
            for name in ("keys", "new_keys", "new_values", "values")
        )
        assert str(caught.value) == (
            f"the plan of compact does not fit the contract: {faults}. "
            "Build it again with: hermes-edge build BUNDLE"
        )


def test_an_engine_fills_what_is_empty(
    build: Build, tensorrt: Any, device: CudaDevice, bundle: Bundle
) -> None:
    """Nothing to fold: TensorRT sees one row of weight 0."""
    build()
    engine = TensorRTBackend(device, tensorrt).engine(bundle, "compact")
    rows = np.random.default_rng(0).standard_normal((4, 2, 64), dtype=np.float32)
    dtypes = {tensor.name: tensor.dtype for tensor in bundle.graph("compact").inputs}
    arrays: dict[str, Any] = {
        "keys": rows,
        "values": rows,
        "keep": np.array([0, 2]),
        "keep_delta": np.zeros(2, np.int64),
        "fold": np.zeros(0, np.int64),
        "fold_delta": np.zeros(0, np.int64),
        "fold_weight": np.zeros(0, np.float32),
    }
    inputs = {}
    for name, array in arrays.items():
        inputs[name] = device.allocate(array.shape, dtypes[name])
        device.upload(array, inputs[name])
    outputs = {name: device.allocate((3, 2, 64), "float32") for name in ("new_keys", "new_values")}
    engine.run(inputs, outputs)
    kept = device.download(outputs["new_values"])
    np.testing.assert_array_equal(kept[:2], rows[[0, 2]])
    assert not kept[2].any()
