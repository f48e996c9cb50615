"""Devices, wheels and plans that cannot serve: one message each, with what to do."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from hermes_edge.engines import Bundle
from hermes_edge.engines.backends import OrtBackend, TensorRTBackend
from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.engines.trt.build import build_bundle
from hermes_edge.engines.trt.builder import BuildOptions
from hermes_edge.engines.trt.folder import place_of
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.errors import BudgetError, BundleError, EngineError, QuestionError
from hermes_edge.installed import installed_wheels
from hermes_edge.runtime import Runtime, SamplingParams, Session
from hermes_edge.shipped import TINY_BUNDLE
from hermes_edge.synthetic import draw_stream, make_stream

RESERVE = 96
LIMITS = Limits(capacity_rows=13 + 128 + 32 + RESERVE, pass_rows=96, probe_rows=96, frames=2)
SESSION: dict[str, Any] = {
    "budget_tokens": 128,
    "chunk_frames": 2,
    "workspace_bytes": 4 * 4 * 269 * 32,
}
SHORT_OF_SEVEN_GB = (
    "required 7,000,000,000 bytes of device memory, found {} free of 1,073,741,824; Requested "
    "amount of GPU memory (7000000000 bytes) could not be allocated. There may not be enough free "
    "memory for allocation to succeed.; Error Code 2: OutOfMemory (Requested size was 7000000000 "
    "bytes). "
)


LONG = "What is it now? " * 20
FEW = SamplingParams(max_new_tokens=4)
# What the versions share is tested in one.
one_version = pytest.mark.parametrize("tensorrt", ["10.3.0"], indirect=True)


class Silent:
    """A build that nobody watches."""

    def phase_started(self, phase: str, steps: int) -> None: ...

    def step_done(self, phase: str, step: int) -> None: ...

    def phase_finished(self, phase: str) -> None: ...


Build = Callable[[], Path]


@pytest.fixture
def build(tensorrt: Any, device: CudaDevice, bundle: Bundle) -> Build:
    def call() -> Path:
        return build_bundle(
            tensorrt,
            bundle,
            place_of(tensorrt, device),
            LIMITS,
            BuildOptions(),
            lambda name: Silent(),
            memory=device.memory,
        )

    return call


def test_out_of_device_memory_in_a_build(build: Build, tensorrt: Any, bundle: Bundle) -> None:
    tensorrt.short_of_memory = "build"
    with pytest.raises(EngineError) as caught:
        build()
    assert str(caught.value) == (
        f"TensorRT cannot build vision.onnx: {SHORT_OF_SEVEN_GB.format('1,073,741,824')}"
        "Try --low-memory, a smaller --workspace, --budget or --chunk-frames, or end other programs"
    )
    assert not list((bundle.path / "engines").iterdir())


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("load", "TensorRT cannot load the plan of decoder"),
        ("context", "there is no device memory to run decoder"),
    ],
)
def test_out_of_device_memory_at_load(
    build: Build, tensorrt: Any, bundle: Bundle, device: CudaDevice, where: str, problem: str
) -> None:
    build()
    tensorrt.short_of_memory = where
    kept = device.allocate((1_000_000,), "uint8")
    with pytest.raises(EngineError) as caught:
        Runtime(bundle, TensorRTBackend(device, tensorrt))
    assert str(caught.value) == (
        f"{problem}: {SHORT_OF_SEVEN_GB.format('1,072,741,824')}"
        "Build again with a smaller --budget or --chunk-frames, or end other programs"
    )
    assert kept.nbytes == 1_000_000


@one_version
def test_out_of_device_memory_for_a_session(
    build: Build, tensorrt: Any, bundle: Bundle, device: CudaDevice, cuda: Any
) -> None:
    """It fails when it is made, says what is free, and gives back what it had taken."""
    build()
    runtime = Runtime(bundle, TensorRTBackend(device, tensorrt))
    before = cuda.used_bytes
    # Ten layers and a spare, keys and values of 269 rows, 2 heads of 64, in float32.
    slabs = 11 * 2 * 269 * 2 * 64 * 4
    cuda.total_bytes = before + slabs - 1
    with pytest.raises(BudgetError) as caught:
        runtime.session(**SESSION, reserve_tokens=RESERVE)
    assert str(caught.value).startswith(
        f"the memory of the stream does not fit cuda:0: required {slabs:,} bytes (slabs "
    )
    assert str(caught.value).endswith(
        f"found {slabs - 1:,} free. Lower budgets or chunk_frames, or leave a stream out, "
        "or end other programs"
    )
    assert cuda.used_bytes == before
    # Slabs fit, and what is staged for the engines does not.
    cuda.total_bytes = before + slabs + 1000
    with pytest.raises(BudgetError) as caught:
        runtime.session(**SESSION, reserve_tokens=RESERVE)
    assert str(caught.value).startswith("cuda:0 is out of memory: required ")
    assert str(caught.value).endswith(
        f" free of {cuda.total_bytes:,}. Lower the budget, chunk_frames or the number of streams "
        "(hermes-edge plan adds them up), or end other programs"
    )
    del caught
    gc.collect()
    assert cuda.used_bytes == before
    cuda.total_bytes = 1 << 30
    runtime.session(**SESSION, reserve_tokens=RESERVE)


@one_version
def test_a_longer_question_than_the_plans_were_built_for(
    build: Build, tensorrt: Any, bundle: Bundle, device: CudaDevice
) -> None:
    """A session that promises it fails at its start, one that does not refuses the question."""
    build()
    runtime = Runtime(bundle, TensorRTBackend(device, tensorrt))
    with pytest.raises(EngineError) as caught:
        runtime.session(**SESSION, reserve_tokens=2 * RESERVE)
    assert str(caught.value).startswith(
        "the plan of compact is built for smaller sessions: required keys [1, 2, 64] to "
        "[269, 2, 64], found [365, 2, 64]; "
    )
    assert str(caught.value).endswith(
        "Build it again with a larger --budget, --chunk-frames or --reserve-tokens, or ask for less"
    )
    with runtime.session(**SESSION, reserve_tokens=RESERVE) as session:
        watch(session)
        with pytest.raises(
            QuestionError, match=r"^the question does not fit the reserve: required"
        ):
            session.ask(LONG, FEW)


@one_version
def test_a_question_of_more_rows_than_a_pass_is_asked_in_slices(
    build: Build, tensorrt: Any, bundle: Bundle, device: CudaDevice
) -> None:
    build()
    answers = []
    for runtime in (Runtime(bundle, TensorRTBackend(device, tensorrt)), Runtime.load(bundle.path)):
        # As many rows as the plans hold, and more of them for a question.
        smaller = {**SESSION, "budget_tokens": 128 - RESERVE}
        with runtime.session(**smaller, reserve_tokens=2 * RESERVE) as session:
            watch(session)
            answers.append(session.ask(LONG, FEW))
    assert answers[0].text == answers[1].text
    assert answers[0].question_rows > LIMITS.pass_rows


def watch(session: Session) -> None:
    for index, frame in enumerate(draw_stream(make_stream(0, 4))):
        session.feed(frame, at=float(index))


@one_version
def test_plans_of_other_weights_in_a_file_beside_the_graph(
    tensorrt: Any, device: CudaDevice, tmp_path: Path
) -> None:
    """Of another training, where the graph's own file is the same."""
    folder = Path(shutil.copytree(TINY_BUNDLE, tmp_path / "bundle", copy_function=os.symlink))
    (folder / "manifest.json").unlink()

    def with_weights(content: bytes) -> Bundle:
        (folder / "score.onnx.data").write_bytes(content)
        document = json.loads((TINY_BUNDLE / "manifest.json").read_text())
        digest = hashlib.sha256(content).hexdigest()
        document["files"].append(
            {"path": "score.onnx.data", "bytes": len(content), "sha256": digest}
        )
        (folder / "manifest.json").write_text(json.dumps(document))
        return Bundle.open(folder)

    before = with_weights(b"one")
    here = place_of(tensorrt, device)
    build_bundle(tensorrt, before, here, LIMITS, BuildOptions(), lambda name: Silent())
    backend = TensorRTBackend(device, tensorrt)
    backend.engine(before, "score")
    with pytest.raises(BundleError) as caught:
        backend.engine(with_weights(b"two"), "score")
    assert (
        f"score.onnx.data: required sha256 {hashlib.sha256(b'two').hexdigest()}, "
        f"found {hashlib.sha256(b'one').hexdigest()}. Build it on this machine: "
    ) in str(caught.value)


def test_a_driver_without_a_gpu(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    success = cuda.cudaGetDeviceCount()[0]
    monkeypatch.setitem(cuda._functions, "cudaGetDeviceCount", lambda: (success, 0))
    with pytest.raises(EngineError) as caught:
        CudaDevice(0, cuda)
    assert str(caught.value) == (
        "there is no GPU 0: required 1 or more, found 0. "
        "See what is there with: nvidia-smi, or hermes-edge doctor"
    )


@pytest.fixture
def cpu_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the CPU package says of itself, whichever is installed here."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])


@pytest.mark.usefixtures("cpu_wheel")
def test_the_cpu_wheel_asked_for_cuda_on_a_machine_with_a_gpu(
    bundle: Bundle, device: CudaDevice
) -> None:
    with pytest.raises(EngineError) as caught:
        Runtime(bundle, OrtBackend(device, 0))
    assert str(caught.value) == (
        "this ONNX Runtime cannot use cuda: required CUDAExecutionProvider, found "
        "CPUExecutionProvider. Install it with: pip uninstall onnxruntime && pip install "
        "'hermes-edge[cuda]'"
    )


@pytest.fixture
def both_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves of two wheels that it was asked for one after the other."""
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / "site" / f"{name}-1.20.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.20.0\n"
        )
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.mark.usefixtures("both_wheels")
def test_both_wheels_are_found() -> None:
    assert installed_wheels() == ["onnxruntime 1.20.0", "onnxruntime-gpu 1.20.0"]


@pytest.mark.usefixtures("cpu_wheel", "both_wheels")
def test_both_wheels_installed_and_cuda_gone(bundle: Bundle, device: CudaDevice) -> None:
    with pytest.raises(EngineError) as caught:
        Runtime(bundle, OrtBackend(device, 0))
    assert str(caught.value) == (
        "ONNX Runtime is installed twice and cannot use cuda: required one of onnxruntime and "
        "onnxruntime-gpu, which overwrite each other's files, found onnxruntime 1.20.0 and "
        "onnxruntime-gpu 1.20.0. Mend it with: pip uninstall -y onnxruntime onnxruntime-gpu && "
        "pip install 'hermes-edge[cuda]'"
    )
