"""Stand-ins for CUDA and TensorRT, where the machine has neither.

Host memory plays the GPU's, and ONNX Runtime computes what a plan would. Every name that is used
must be one that the real bindings have: those of TensorRT by the lists in ``tensorrt-names``, those
of CUDA by its real module. So spelling, order, addresses and shapes are tested; no GPU is.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from hermes_edge.engines import Bundle
from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.shipped import TINY_BUNDLE

NAMES = Path(__file__).parent / "tensorrt-names"
VERSIONS = sorted(path.stem for path in NAMES.glob("*.json"))
SUCCESS = SimpleNamespace(name="cudaSuccess")
ALIGNMENT = 256
CAPTURING_STREAM = 78


class HostCuda:
    """``cuda.bindings.runtime`` over host memory, with a limit."""

    def __init__(self, total_bytes: int = 1 << 30) -> None:
        self.total_bytes, self.used_bytes = total_bytes, 0
        self.calls: list[str] = []
        self._buffers: dict[int, tuple[Any, int]] = {}
        # What a capture records, and what is wrong with one: "end" or "instantiate".
        self._recording: list[Callable[[], bool]] | None = None
        self.capture_fault = ""
        # What was recorded and not destroyed, and what was made of it and not dropped.
        self.recorded: list[list[Callable[[], bool]]] = []
        self.graphs: dict[int, list[Callable[[], bool]]] = {}
        self._made_graphs = 0
        self._functions: dict[str, Callable[..., tuple[Any, ...]]] = {
            "cudaGetDeviceCount": lambda: (SUCCESS, 1),
            "cudaSetDevice": lambda index: (SUCCESS,),
            "cudaGetDeviceProperties": lambda index: (
                SUCCESS,
                SimpleNamespace(name=b"Orin", major=8, minor=7),
            ),
            "cudaStreamCreate": lambda: (SUCCESS, 77),
            "cudaStreamSynchronize": lambda stream: (SUCCESS,),
            "cudaEventCreate": lambda: (SUCCESS, object()),
            "cudaEventRecord": lambda event, stream: (SUCCESS,),
            "cudaEventSynchronize": lambda event: (SUCCESS,),
            "cudaMemGetInfo": lambda: (
                SUCCESS,
                self.total_bytes - self.used_bytes,
                self.total_bytes,
            ),
            "cudaHostAlloc": lambda nbytes, flags: (SUCCESS, self._take(nbytes)),
            "cudaMalloc": self._malloc,
            "cudaFree": self._free,
            "cudaMemsetAsync": self._memset,
            "cudaMemcpyAsync": self._memcpy,
            "cudaStreamCreateWithFlags": lambda flags: (SUCCESS, CAPTURING_STREAM),
            "cudaStreamBeginCapture": self._begin,
            "cudaStreamEndCapture": self._end,
            "cudaGraphInstantiate": self._instantiate,
            "cudaGraphDestroy": self._destroy,
            "cudaGraphLaunch": self._launch,
            "cudaGraphExecDestroy": self._drop,
        }
        self.cudaStreamNonBlocking = 1
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        self.cudaMemcpyKind = SimpleNamespace(
            cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
        )

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        from cuda.bindings import runtime

        assert hasattr(runtime, name), f"CUDA has no {name}"
        self.calls.append(name)
        return self._functions[name]

    def queue(self, stream: int, work: Callable[[], bool]) -> bool:
        """Do what is queued, or record it."""
        if stream == CAPTURING_STREAM:
            assert self._recording is not None, "nothing is captured on this stream"
            self._recording.append(work)
            return True
        assert stream == 77
        return work()

    def _begin(self, stream: int, mode: int) -> tuple[Any, ...]:
        assert (stream, mode, self._recording) == (CAPTURING_STREAM, 1, None)
        self._recording = []
        return (SUCCESS,)

    def _end(self, stream: int) -> tuple[Any, ...]:
        assert stream == CAPTURING_STREAM and self._recording is not None
        recorded, self._recording = self._recording, None
        if self.capture_fault == "end":
            return SimpleNamespace(name="cudaErrorStreamCaptureInvalidated"), 0
        self.recorded.append(recorded)
        return SUCCESS, recorded

    def _destroy(self, graph: Any) -> tuple[Any, ...]:
        self.recorded.remove(graph)
        return (SUCCESS,)

    def _instantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        if self.capture_fault == "instantiate":
            return SimpleNamespace(name="cudaErrorMemoryAllocation"), 0
        self._made_graphs += 1
        self.graphs[self._made_graphs] = graph
        return SUCCESS, self._made_graphs

    def _launch(self, executable: int, stream: int) -> tuple[Any, ...]:
        assert stream == 77
        for work in self.graphs[executable]:
            assert work()
        return (SUCCESS,)

    def _drop(self, executable: int) -> tuple[Any, ...]:
        del self.graphs[executable]
        return (SUCCESS,)

    def _take(self, nbytes: int) -> int:
        buffer = ctypes.create_string_buffer(nbytes + ALIGNMENT)
        # What was there before: nobody may count on zeros.
        ctypes.memset(buffer, 0xA5, nbytes + ALIGNMENT)
        address = -(-ctypes.addressof(buffer) // ALIGNMENT) * ALIGNMENT
        self._buffers[address] = (buffer, nbytes)
        return address

    def _malloc(self, nbytes: int) -> tuple[Any, ...]:
        if self.used_bytes + nbytes > self.total_bytes:
            return SimpleNamespace(name="cudaErrorMemoryAllocation"), 0
        self.used_bytes += nbytes
        return SUCCESS, self._take(nbytes)

    def _free(self, address: int) -> tuple[Any, ...]:
        _, nbytes = self._buffers.pop(address)
        self.used_bytes -= nbytes
        return (SUCCESS,)

    def _memset(self, address: int, value: int, nbytes: int, stream: int) -> tuple[Any, ...]:
        assert stream == 77
        ctypes.memset(address, value, nbytes)
        return (SUCCESS,)

    def _memcpy(
        self, target: int, source: int, nbytes: int, kind: int, stream: int
    ) -> tuple[Any, ...]:
        assert stream == 77 and kind in (1, 2, 3)
        ctypes.memmove(target, source, nbytes)
        return (SUCCESS,)


def guarded(names: Mapping[str, list[str]], kind: str, members: Mapping[str, Any]) -> Any:
    """An object of a TensorRT class: what the class does not have cannot be touched."""

    class Guarded:
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("__"):
                return object.__getattribute__(self, name)
            assert name in names[kind], f"{kind} has no {name}"
            return object.__getattribute__(self, name)

        def __setattr__(self, name: str, value: Any) -> None:
            assert name in names[kind], f"{kind} has no {name}"
            object.__setattr__(self, name, value)

    made = Guarded()
    for name, value in members.items():
        setattr(made, name, value)
    return made


class HostTensorRT:
    """The module ``tensorrt`` of one version: builds a plan that names its graph, and runs it."""

    def __init__(self, version: str, cuda: HostCuda) -> None:
        self.__version__ = version
        self._cuda = cuda
        self.names: dict[str, list[str]] = json.loads((NAMES / f"{version}.json").read_text())
        self.builds: list[dict[str, Any]] = []
        self.refusal: list[str] = []
        self.has_gpu = True
        # Where memory does not suffice: "build", "load" or "context".
        self.short_of_memory = ""
        # What results are wrong by, as a share of themselves.
        self.error = 0.0
        names = self.names

        class Listener:
            def __init__(self) -> None:
                assert "log" in names["ILogger"]

        class Monitor:
            def __init__(self) -> None:
                for name in ("phase_start", "step_complete", "phase_finish"):
                    assert name in names["IProgressMonitor"]

        for level in ("INTERNAL_ERROR", "ERROR", "WARNING"):
            assert level in names["ILogger"]
            setattr(Listener, level, level)
        self.ILogger, self.IProgressMonitor = Listener, Monitor
        assert "TF32" in names["BuilderFlag"]
        assert "STRONGLY_TYPED" in names["NetworkDefinitionCreationFlag"]
        assert "WORKSPACE" in names["MemoryPoolType"]
        self.BuilderFlag = SimpleNamespace(TF32="tf32")
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")

    def Builder(self, logger: Any) -> Any:
        self._need_gpu()
        self._logger = logger
        self._build: dict[str, Any] = {"profiles": []}
        return guarded(
            self.names,
            "Builder",
            {
                "create_network": self._network,
                "create_builder_config": self._config,
                "create_optimization_profile": self._profile,
                "build_serialized_network": self._serialize,
            },
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return guarded(
            self.names,
            "OnnxParser",
            {
                "parse_from_file": self._parse,
                "num_errors": len(self.refusal),
                "get_error": lambda index: guarded(
                    self.names,
                    "ParserError",
                    {
                        "node_operator": lambda: "TopK",
                        "node_name": lambda: "here",
                        "desc": lambda: self.refusal[index],
                    },
                ),
            },
        )

    def Runtime(self, logger: Any) -> Any:
        self._need_gpu()
        self._logger = logger
        return guarded(self.names, "Runtime", {"deserialize_cuda_engine": self._deserialize})

    def _is_short(self, where: str) -> bool:
        """Whether memory ends here, in TensorRT's own words."""
        if self.short_of_memory != where:
            return False
        self._logger.log(
            "WARNING",
            "Requested amount of GPU memory (7000000000 bytes) could not be allocated. There may "
            "not be enough free memory for allocation to succeed.",
        )
        self._logger.log("ERROR", "Error Code 2: OutOfMemory (Requested size was 7000000000 bytes)")
        return True

    def _need_gpu(self) -> None:
        if not self.has_gpu:
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def _network(self, flags: int) -> str:
        assert flags == 1 << 1
        return "network"

    def _parse(self, path: str) -> bool:
        self._build["onnx"] = path
        return not self.refusal

    def _config(self) -> Any:
        build = self._build

        def pool(kind: str, nbytes: int) -> None:
            build[kind] = nbytes

        def cache(data: bytes) -> Any:
            build["cache"] = data
            return guarded(self.names, "ITimingCache", {"serialize": lambda: data + b"+"})

        def use_cache(made: Any, ignore_mismatch: bool) -> bool:
            build["timing"] = made
            return True

        self._made_config = guarded(
            self.names,
            "IBuilderConfig",
            {
                "set_memory_pool_limit": pool,
                "clear_flag": build.setdefault("cleared", []).append,
                "create_timing_cache": cache,
                "set_timing_cache": use_cache,
                "get_timing_cache": lambda: build["timing"],
                "add_optimization_profile": build["profiles"].append,
            },
        )
        return self._made_config

    def _profile(self) -> Any:
        shapes: dict[str, Any] = {}

        def set_shape(name: str, *bounds: tuple[int, ...]) -> None:
            shapes[name] = bounds

        profile = guarded(self.names, "IOptimizationProfile", {"set_shape": set_shape})
        self._build.setdefault("shapes", []).append(shapes)
        return profile

    def _serialize(self, network: Any, config: Any) -> bytes | None:
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 2)
        goes_on = monitor.step_complete("Building", 0)
        monitor.phase_finish("Building")
        if not goes_on:
            return None
        self._build["level"] = config.builder_optimization_level
        self.builds.append(self._build)
        if self._is_short("build"):
            return None
        if self._build["onnx"].endswith("impossible.onnx"):
            self._logger.log("ERROR", "no kernel")
            return None
        return json.dumps({"onnx": self._build["onnx"], "shapes": self._build["shapes"]}).encode()

    def _deserialize(self, plan: bytes) -> Any:
        if self._is_short("load"):
            return None
        try:
            document = json.loads(plan)
        except ValueError:
            self._logger.log("ERROR", "magic tag does not match")
            return None
        session = onnxruntime.InferenceSession(document["onnx"], providers=["CPUExecutionProvider"])
        kinds = {"float": "FLOAT", "float16": "HALF", "int64": "INT64", "bool": "BOOL"}
        kinds |= {"bfloat16": "BF16", "uint8": "UINT8"}
        tensors = {t.name: t for t in (*session.get_inputs(), *session.get_outputs())}
        members = {
            "num_io_tensors": len(tensors),
            "device_memory_size_v2": 6_000_000,
            "num_optimization_profiles": len(document["shapes"]),
            "get_tensor_name": lambda index: [*tensors][index],
            "get_tensor_dtype": lambda name: guarded(
                self.names, "DataType", {"name": kinds[tensors[name].type[7:-1]]}
            ),
            "get_tensor_shape": lambda name: tensors[name].shape,
            "create_execution_context": lambda: self._context(session, document["shapes"]),
        }
        return guarded(self.names, "ICudaEngine", members)

    def _context(self, session: Any, profiles: list[dict[str, Any]]) -> Any:
        if self._is_short("context"):
            return None
        state: dict[str, Any] = {"shapes": {}, "addresses": {}}

        def use_profile(index: int, stream: int) -> bool:
            state["profile"] = profiles[index]
            return True

        def set_shape(name: str, shape: tuple[int, ...]) -> bool:
            least, _, most = state["profile"][name]
            state["shapes"][name] = shape
            return all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

        def set_address(name: str, address: int) -> None:
            assert address % ALIGNMENT == 0, name
            state["addresses"][name] = address

        def missing() -> list[str]:
            return [t.name for t in session.get_inputs() if t.name not in state["shapes"]]

        def execute(stream: int) -> bool:
            shapes, addresses = dict(state["shapes"]), dict(state["addresses"])
            # A change of shapes is deferred work, which cannot be captured.
            if stream != 77 and shapes != state.get("ran"):
                self._logger.log("ERROR", "capture before the first call of these shapes")
                return False
            state["ran"] = shapes
            return self._cuda.queue(
                stream, lambda: run_at_addresses(session, shapes, addresses, self.error)
            )

        return guarded(
            self.names,
            "IExecutionContext",
            {
                "set_optimization_profile_async": use_profile,
                "set_input_shape": set_shape,
                "set_tensor_address": set_address,
                "infer_shapes": missing,
                "execute_async_v3": execute,
            },
        )


def run_at_addresses(
    session: Any,
    shapes: Mapping[str, tuple[int, ...]],
    addresses: Mapping[str, int],
    error: float,
) -> bool:
    """Compute with numpy arrays over the addresses; results, wrong by ``error``, go to theirs."""
    types = {
        "float": np.float32,
        "float16": np.float16,
        "int64": np.int64,
        "bool": np.bool_,
        "uint8": np.uint8,
    }
    feeds = {}
    for node in session.get_inputs():
        dtype = np.dtype(types[node.type[7:-1]])
        nbytes = int(np.prod(shapes[node.name])) * dtype.itemsize
        raw = (ctypes.c_uint8 * nbytes).from_address(addresses[node.name])
        feeds[node.name] = np.ctypeslib.as_array(raw).view(dtype).reshape(shapes[node.name])
    for node, result in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        data = np.ascontiguousarray(result + (error * result).astype(result.dtype))
        ctypes.memmove(addresses[node.name], data.ctypes.data, data.nbytes)
    return True


@pytest.fixture
def cuda() -> HostCuda:
    return HostCuda()


@pytest.fixture(params=VERSIONS)
def tensorrt(request: pytest.FixtureRequest, cuda: HostCuda) -> HostTensorRT:
    return HostTensorRT(request.param, cuda)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """hermes-tiny in a folder of its own, for plans to be put in."""
    return Bundle.open(shutil.copytree(TINY_BUNDLE, tmp_path / "bundle", copy_function=os.symlink))


@pytest.fixture
def device(cuda: Any) -> CudaDevice:
    """A GPU over host memory."""
    return CudaDevice(0, cuda)
