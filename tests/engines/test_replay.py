"""A static decoder's steps in TensorRT: run once, captured, and launched from then on."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.bench.inside import replayed
from hermes_edge.contract import past_key, past_value, present_key, present_value
from hermes_edge.engines import Bundle, View
from hermes_edge.engines.backends import TensorRTBackend
from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.engines.precision import compare_with_cpu, require_parity
from hermes_edge.engines.trt.build import build_bundle
from hermes_edge.engines.trt.builder import BuildOptions
from hermes_edge.engines.trt.engine import TensorRTEngine
from hermes_edge.engines.trt.folder import PlanFolder, place_of
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.engines.trt.replay import Replay
from hermes_edge.engines.views import Array
from hermes_edge.errors import EngineError, ParityError
from hermes_edge.runtime import ProbeTokens, Runtime, SamplingParams, Session

pytestmark = pytest.mark.slow

LIMITS = Limits(capacity_rows=3 + 48 + 16 + 32, pass_rows=32, probe_rows=32, frames=2)
LAYERS, HEAD, WIDTH, VOCABULARY = 10, (2, 32), 128, 96
QUESTION, ANSWER = (21, 22, 23, 24), SamplingParams(max_new_tokens=6)
one_version = pytest.mark.parametrize("tensorrt", ["10.3.0"], indirect=True)


class Silent:
    """A build's progress that nobody watches."""

    def phase_started(self, phase: str, steps: int) -> None: ...
    def step_done(self, phase: str, step: int) -> None: ...
    def phase_finished(self, phase: str) -> None: ...


@pytest.fixture
def planned(tensorrt: Any, device: CudaDevice, static_bundle: Path, tmp_path: Path) -> Bundle:
    """The static bundle with plans in it."""
    bundle = Bundle.open(shutil.copytree(static_bundle, tmp_path / "static"))
    here = place_of(tensorrt, device)
    build_bundle(tensorrt, bundle, here, LIMITS, BuildOptions(), lambda name: Silent())
    return bundle


@pytest.fixture
def decoder(tensorrt: Any, device: CudaDevice, planned: Bundle) -> TensorRTEngine:
    return PlanFolder.open(planned, place_of(tensorrt, device)).engine(tensorrt, device, "decoder")


class Step:
    """Memory for one row on slabs of so many rows, and what came out of it."""

    def __init__(self, device: CudaDevice, rows: int = 40, seen: int = 30) -> None:
        random = np.random.default_rng(rows)
        self._device = device
        self.inputs = {
            "inputs_embeds": self._put(random.normal(size=(1, WIDTH)), "float32"),
            "position_ids": self._put(np.full((LAYERS, 1), seen), "int64"),
            "segment_ids": self._put(np.zeros(1), "int64"),
            "logit_rows": self._put(np.zeros(1), "int64"),
            "probe_rows": self._put(np.zeros(0), "int64"),
            "past_rows": self._put(np.full(LAYERS, seen), "int64"),
        }
        self.outputs = {
            "logits": device.allocate((1, VOCABULARY), "float32"),
            "probe_queries": device.allocate((LAYERS, 0, 4, 32), "float32"),
        }
        for layer in range(LAYERS):
            for past, present in ((past_key, present_key), (past_value, present_value)):
                cached = self._put(random.normal(size=(rows, *HEAD)), "float32")
                self.inputs[past(layer)] = cached
                self.outputs[present(layer)] = device.allocate((1, *HEAD), "float32")

    def _put(self, values: Any, dtype: Any) -> View:
        view = self._device.allocate(values.shape, dtype)
        self._device.upload(values.astype(dtype), view)
        return view

    def embed(self, seed: int) -> None:
        """Another token, at the same address."""
        token = np.random.default_rng(seed).normal(size=(1, WIDTH)).astype(np.float32)
        self._device.upload(token, self.inputs["inputs_embeds"])

    def swap(self) -> None:
        """What compaction does with two slabs of keys."""
        a, b = past_key(1), past_key(2)
        self.inputs[a], self.inputs[b] = self.inputs[b], self.inputs[a]

    def logits(self) -> Array:
        logits: Array = self._device.download(self.outputs["logits"])[0]
        return logits


def counts(engine: TensorRTEngine) -> tuple[int, int, int]:
    replay = engine.replay
    assert replay is not None
    return replay.plain_runs, replay.captures, replay.launches


def graph_calls(cuda: Any) -> list[str]:
    names = [name for name in cuda.calls if "Graph" in name or "Capture" in name]
    return [name for name in names if name != "cudaStreamCaptureMode"]


def test_run_captured_launched(
    decoder: TensorRTEngine, device: CudaDevice, cuda: Any, planned: Bundle
) -> None:
    step, expected = Step(device), Bundle.open(planned.path).engine("decoder")
    cuda.calls.clear()
    for count, state in enumerate([(1, 0, 0), (1, 1, 1), (1, 1, 2), (1, 1, 3)]):
        step.embed(count)
        decoder.run(step.inputs, step.outputs)
        assert counts(decoder) == state
        found = step.logits()
        # The same call outside TensorRT, on the same memory.
        other = {name: device.allocate(v.shape, v.dtype) for name, v in step.outputs.items()}
        expected.run(step.inputs, other)
        np.testing.assert_array_equal(found, device.download(other["logits"])[0])
    assert graph_calls(cuda) == [
        "cudaStreamBeginCapture",
        "cudaStreamEndCapture",
        "cudaGraphInstantiate",
        "cudaGraphDestroy",
        *["cudaGraphLaunch"] * 3,
    ]


@one_version
def test_other_addresses_are_captured_anew_and_old_ones_still_serve(
    decoder: TensorRTEngine, device: CudaDevice, cuda: Any
) -> None:
    step = Step(device)
    for _ in range(3):
        decoder.run(step.inputs, step.outputs)
    before = step.logits().copy()
    step.swap()
    for state in [(2, 1, 2), (2, 2, 3), (2, 2, 4)]:
        decoder.run(step.inputs, step.outputs)
        assert counts(decoder) == state
        assert np.abs(step.logits() - before).max() > 1e-3
    step.swap()
    decoder.run(step.inputs, step.outputs)
    assert counts(decoder) == (2, 2, 5)
    np.testing.assert_array_equal(step.logits(), before)


@one_version
def test_other_shapes_make_all_graphs_worthless(
    decoder: TensorRTEngine, device: CudaDevice, cuda: Any
) -> None:
    small, large = Step(device, rows=40), Step(device, rows=50)
    for _ in range(2):
        decoder.run(small.inputs, small.outputs)
    assert len(cuda.graphs) == 1
    decoder.run(large.inputs, large.outputs)
    gc.collect()
    assert not cuda.graphs
    for _ in range(2):
        decoder.run(small.inputs, small.outputs)
    assert counts(decoder) == (3, 2, 2)


@one_version
def test_longer_passes_are_never_captured(
    decoder: TensorRTEngine, device: CudaDevice, cuda: Any
) -> None:
    step = Step(device)
    rows = {"inputs_embeds": (2, WIDTH), "position_ids": (LAYERS, 2), "segment_ids": (2,)}
    for name, shape in rows.items():
        step.inputs[name] = device.allocate(shape, step.inputs[name].dtype)
    for name, view in step.outputs.items():
        if name.startswith("present"):
            step.outputs[name] = device.allocate((2, *view.shape[1:]), view.dtype)
    for _ in range(4):
        decoder.run(step.inputs, step.outputs)
    assert counts(decoder) == (0, 0, 0) and not graph_calls(cuda)


@one_version
def test_graphs_are_few_and_go_with_the_engine(
    tensorrt: Any, device: CudaDevice, planned: Bundle, cuda: Any
) -> None:
    plans = PlanFolder.open(planned, place_of(tensorrt, device))
    engine = plans.engine(tensorrt, device, "decoder")
    steps = [Step(device) for _ in range(6)]
    for step in steps:
        for _ in range(2):
            engine.run(step.inputs, step.outputs)
    gc.collect()
    assert counts(engine) == (6, 6, 6) and len(cuda.graphs) == 4
    # The newest four are served; the oldest begins again.
    for step in steps[2:]:
        engine.run(step.inputs, step.outputs)
    assert counts(engine) == (6, 6, 10)
    engine.run(steps[0].inputs, steps[0].outputs)
    assert counts(engine) == (7, 6, 10)
    del engine
    gc.collect()
    assert not cuda.graphs and not cuda.recorded


@one_version
def test_other_graphs_have_no_replay(
    tensorrt: Any, device: CudaDevice, planned: Bundle, bundle: Bundle
) -> None:
    plans = PlanFolder.open(planned, place_of(tensorrt, device))
    assert plans.engine(tensorrt, device, "score").replay is None
    # A decoder without --static-decode has none either.
    here = place_of(tensorrt, device)
    build_bundle(tensorrt, bundle, here, LIMITS, BuildOptions(), lambda name: Silent())
    plans = PlanFolder.open(bundle, here)
    assert plans.engine(tensorrt, device, "decoder").replay is None


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("end", "cudaStreamEndCapture failed on cuda:0: found cudaErrorStreamCaptureInvalidated"),
        ("instantiate", "cudaGraphInstantiate failed on cuda:0: found cudaErrorMemoryAllocation"),
    ],
)
@one_version
def test_a_capture_that_cuda_refuses(
    decoder: TensorRTEngine, device: CudaDevice, cuda: Any, fault: str, found: str
) -> None:
    step = Step(device)
    decoder.run(step.inputs, step.outputs)
    cuda.capture_fault = fault
    with pytest.raises(EngineError) as caught:
        decoder.run(step.inputs, step.outputs)
    assert str(caught.value) == (
        f"a step of the decoder cannot be captured as a CUDA graph: found {found}. "
        "Export again without --static-decode"
    )
    # Nothing is left half done: the next one is captured.
    assert not cuda.recorded and not cuda.graphs
    cuda.capture_fault = ""
    decoder.run(step.inputs, step.outputs)
    assert counts(decoder) == (1, 1, 1)


def test_a_capture_that_tensorrt_refuses_ends(device: CudaDevice, cuda: Any) -> None:
    replay, tensors = Replay(device), Step(device).inputs

    def enqueue(stream: int) -> None:
        if stream != device.stream:
            raise EngineError("a call of decoder failed", found="not capturable")

    replay.run(tensors, enqueue)
    for _ in range(2):
        # The second one would find the stream still capturing.
        with pytest.raises(EngineError) as caught:
            replay.run(tensors, enqueue)
        assert str(caught.value) == (
            "a step of the decoder cannot be captured as a CUDA graph: found a call of decoder "
            "failed: found not capturable. Export again without --static-decode"
        )
    assert (replay.plain_runs, replay.captures, replay.launches) == (1, 0, 0)
    assert not cuda.recorded


def test_what_other_threads_copy_is_not_captured(device: CudaDevice, cuda: Any) -> None:
    """Sessions share the device's stream, so a capture has one of its own."""
    target = device.allocate((4,), "int64")
    ran: list[bool] = []

    def other(value: int) -> None:
        device.upload(np.full(4, value), target)

    def kernel() -> bool:
        ran.append(True)
        return True

    def work(stream: int) -> None:
        cuda.queue(stream, kernel)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(other, 5).result()

    graph = device.capture(work)
    assert device.download(target).tolist() == [5] * 4 and not ran
    device.upload(np.full(4, 6), target)
    graph.launch()
    assert device.download(target).tolist() == [6] * 4 and ran == [True]


def open_session(runtime: Runtime) -> Session:
    return runtime.session(
        budget_tokens=48,
        chunk_frames=2,
        reserve_tokens=32,
        workspace_bytes=4 * 4 * 99 * 16,
        prefix_ids=(7, 11, 13),
        probes=lambda last: ProbeTokens((31, 32, 33), (41, 42)),
    )


def stream(
    session: Session, chunks: int, look: Callable[[int], None] = lambda chunk: None
) -> list[tuple[int, ...]]:
    """Answers after every second chunk."""
    answers = []
    for chunk in range(chunks):
        random = np.random.default_rng(chunk)
        session.feed_tokens(random.standard_normal((16, WIDTH), dtype=np.float32), float(chunk))
        if chunk % 2:
            answers.append(session.ask(QUESTION, ANSWER).token_ids)
            look(chunk)
    return answers


def test_a_session_whose_answers_are_launched_is_that_on_the_cpu(
    tensorrt: Any, device: CudaDevice, planned: Bundle
) -> None:
    runtime = Runtime(planned, TensorRTBackend(device, tensorrt))
    engine: Any = runtime._factory.engine("decoder")
    session = open_session(runtime)
    # The first session has run and captured a step before it takes a frame.
    assert counts(engine) == (1, 1, 1)
    seen = []
    answers = stream(session, 9, lambda chunk: seen.append(counts(engine)))
    plain = open_session(Runtime.load(planned.path))
    assert answers == stream(plain, 9)
    for ours, theirs in zip(session.rows(), plain.rows(), strict=True):
        np.testing.assert_array_equal(ours.position, theirs.position)
    assert all(len(tokens) == 6 for tokens in answers)
    # Of five steps behind a compaction, which swaps slabs, one is plain and the next captured.
    for before, after in pairwise(seen[1:]):
        assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 4]
    figures = replayed(runtime)
    assert figures is not None and figures.captures == figures.plain_runs == len(answers)
    assert replayed(Runtime.load(planned.path)) is None
    session.flush()
    counted = []
    for _ in range(2):
        session.ask(QUESTION, ANSWER)
        counted.append(counts(engine))
    # Without a compaction between them a second question is launches alone.
    assert [b - a for a, b in zip(*counted, strict=True)] == [0, 0, 5]


@one_version
def test_a_launch_that_does_nothing_is_found_by_the_precision_check(
    tensorrt: Any, device: CudaDevice, planned: Bundle, cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = PlanFolder.open(planned, place_of(tensorrt, device))

    def compare() -> Any:
        return compare_with_cpu(
            planned, "decoder", LIMITS, device, lambda n: plans.engine(tensorrt, device, n)
        )

    require_parity([compare()])
    assert "cudaGraphLaunch" in cuda.calls
    instantiate = cuda._functions["cudaGraphInstantiate"]
    monkeypatch.setitem(
        cuda._functions, "cudaGraphInstantiate", lambda graph, flags: instantiate([], flags)
    )
    with pytest.raises(ParityError, match=r"decoder: required at most 0\.0001 of the maximum, "):
        require_parity([compare()])
