"""An NVIDIA GPU's memory behind the Device protocol: CUDA's runtime, and nothing above it.

Not yet run on hardware. One stream orders everything: copies and engine calls follow each other
without waiting for the host, which waits only where it reads. Host memory on the way is pinned,
of a fixed size, and allocated once; larger tensors cross in pieces.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hermes_edge.contract import DType
from hermes_edge.engines.views import Array, View, check_alike
from hermes_edge.errors import BudgetError, DependencyError, EngineError
from hermes_edge.spec import Precision

# Two halves: one is filled while the other is copied.
_HALF_BYTES = 2 << 20


# Ampere: tensor cores take bf16, and TensorRT builds it, from here on.
_BF16_CAPABILITY = (8, 0)


def check_precision(precision: Precision, gpu: str, compute_capability: str) -> None:
    """Refuse bf16 on a GPU that has none.

    Args:
        precision: of a bundle.
        gpu: its name.
        compute_capability: as ``8.7``.

    Raises:
        EngineError: it is older than Ampere.
    """
    found = tuple(map(int, compute_capability.split(".")))
    if precision == "bf16" and found < _BF16_CAPABILITY:
        raise EngineError(
            f"{gpu} cannot compute in bf16",
            required="compute capability 8.0 or newer",
            found=compute_capability,
            fix="Export with --dtype fp16",
        )


def import_cuda() -> Any:
    """The module ``cuda.bindings.runtime``.

    Raises:
        DependencyError: cuda-bindings is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise DependencyError(
            "CUDA's Python bindings cannot be imported",
            required="the package cuda-bindings",
            found=str(error),
            fix="Install it with: pip install 'hermes-edge[cuda]' (Jetson: [tensorrt])",
        ) from None
    return runtime


class CudaDevice:
    """One GPU: allocations, copies, and the stream that orders them."""

    def __init__(self, index: int = 0, cuda: Any = None) -> None:
        """Open a GPU.

        Args:
            index: as CUDA counts them.
            cuda: the module ``cuda.bindings.runtime``, or what stands in for it.

        Raises:
            DependencyError: cuda-bindings is not installed.
            EngineError: no driver, no such GPU, or one that refuses.
        """
        self._cuda = cuda if cuda is not None else import_cuda()
        self.name = f"cuda:{index}"
        self.index = index
        self.allocated_bytes = 0
        found = self._count()
        if index >= found:
            raise EngineError(
                f"there is no GPU {index}",
                required=f"{index + 1} or more",
                found=found,
                fix="See what is there with: nvidia-smi, or hermes-edge doctor",
            )
        self._call("cudaSetDevice", index)
        properties = self._call("cudaGetDeviceProperties", index)
        self.gpu = (
            properties.name.decode() if isinstance(properties.name, bytes) else properties.name
        )
        self.compute_capability = f"{properties.major}.{properties.minor}"
        self.stream = int(self._call("cudaStreamCreate"))
        self._halves = [int(self._call("cudaHostAlloc", _HALF_BYTES, 0)) for _ in range(2)]
        self._free = [self._call("cudaEventCreate") for _ in range(2)]
        self._turn = 0
        self._capture_stream: int | None = None
        # Sessions of several threads share the pinned memory.
        self._crossing = threading.Lock()

    def allocate(self, shape: tuple[int, ...], dtype: DType) -> View:
        """Zeroed memory; CUDA aligns it to 256 bytes at least.

        Raises:
            BudgetError: the GPU has not as much left.
        """
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        # A thread allocates on its own current GPU, which is the first one at its start.
        self._call("cudaSetDevice", self.index)
        error, address = self._cuda.cudaMalloc(max(nbytes, 1))
        if self._name_of(error) == "cudaErrorMemoryAllocation":
            free, total = self.memory()
            raise BudgetError(
                f"{self.name} is out of memory",
                required=f"{nbytes:,} bytes more",
                found=f"{free:,} free of {total:,}",
                fix="Lower the budget, chunk_frames or the number of streams "
                "(hermes-edge plan adds them up), or end other programs",
            )
        self._check("cudaMalloc", error)
        self._call("cudaMemsetAsync", address, 0, nbytes, self.stream)
        self.allocated_bytes += nbytes
        owner = _Allocation(self, int(address), nbytes)
        return View(int(address), shape, dtype, self.name, owner)

    def upload(self, source: Array, target: View) -> None:
        """Copy a host array of the same shape and dtype; returns before it has arrived."""
        check_alike("upload", source, target)
        data = np.ascontiguousarray(source)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        with self._crossing:
            for start, count in _pieces(data.nbytes):
                half = self._next_half()
                ctypes.memmove(self._halves[half], data.ctypes.data + start, count)
                self._copy(target.address + start, self._halves[half], count, kind)
                self._call("cudaEventRecord", self._free[half], self.stream)

    def copy(self, source: View, target: View) -> None:
        """Copy on the GPU; returns before it has happened."""
        check_alike("copy", source, target)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._copy(target.address, source.address, source.nbytes, kind)

    def download(self, source: View) -> Array:
        """A host copy, after everything that the stream held before."""
        result = np.empty(source.shape, dtype=source.dtype)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        with self._crossing:
            for start, count in _pieces(result.nbytes):
                half = self._next_half()
                self._copy(self._halves[half], source.address + start, count, kind)
                self.synchronize()
                ctypes.memmove(result.ctypes.data + start, self._halves[half], count)
        return result

    def memory(self) -> tuple[int, int]:
        """Bytes of the GPU that are free, and all of them."""
        self._call("cudaSetDevice", self.index)
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def free_bytes(self) -> int:
        """Bytes of the GPU that are free."""
        return self.memory()[0]

    def capture(self, work: Callable[[int], None]) -> CudaGraph:
        """What ``work`` queues on the stream that it is given, recorded and not run.

        Captured on a stream of its own: copies that other threads put on the device's stream would
        become part of the graph. Non-blocking and of this thread alone, so that allocations and the
        default stream of others do not spoil it.

        Raises:
            EngineError: CUDA refuses; what ``work`` raises comes through.
        """
        # As for memory: a stream belongs to the thread's current GPU.
        self._call("cudaSetDevice", self.index)
        if self._capture_stream is None:
            flags = self._cuda.cudaStreamNonBlocking
            self._capture_stream = int(self._call("cudaStreamCreateWithFlags", flags))
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._capture_stream, mode)
        try:
            work(self._capture_stream)
        except BaseException:
            # The stream has to leave its capture; what comes of it is of no interest.
            _, graph = self._cuda.cudaStreamEndCapture(self._capture_stream)
            self._cuda.cudaGraphDestroy(graph)
            raise
        graph = self._call("cudaStreamEndCapture", self._capture_stream)
        try:
            executable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._cuda.cudaGraphDestroy(graph)
        return CudaGraph(self, executable)

    def launch(self, executable: Any) -> None:
        """Queue a graph on the device's stream.

        Raises:
            EngineError: CUDA refuses.
        """
        self._call("cudaGraphLaunch", executable, self.stream)

    def drop(self, executable: Any) -> None:
        """Give a graph back; one that runs is freed at its end."""
        self._cuda.cudaGraphExecDestroy(executable)

    def synchronize(self) -> None:
        """Wait until the stream is empty.

        Raises:
            EngineError: something in it has failed.
        """
        self._call("cudaStreamSynchronize", self.stream)

    def _next_half(self) -> int:
        """The half whose last copy has left, waiting for it if need be."""
        self._turn ^= 1
        self._call("cudaEventSynchronize", self._free[self._turn])
        return self._turn

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", target, source, nbytes, kind, self.stream)

    def _count(self) -> int:
        error, count = self._cuda.cudaGetDeviceCount()
        name = self._name_of(error)
        if name != "cudaSuccess":
            raise EngineError(
                "there is no usable GPU",
                required="an NVIDIA driver that is as new as CUDA's bindings",
                found=name,
                fix="See what is wrong with: nvidia-smi, or hermes-edge doctor",
            )
        return int(count)

    def _call(self, name: str, *arguments: Any) -> Any:
        """A CUDA function's results: none, one, or a tuple."""
        error, *results = getattr(self._cuda, name)(*arguments)
        self._check(name, error)
        return results[0] if len(results) == 1 else tuple(results)

    def _check(self, name: str, error: Any) -> None:
        found = self._name_of(error)
        if found != "cudaSuccess":
            raise EngineError(f"{name} failed on {self.name}", found=found)

    def _name_of(self, error: Any) -> str:
        return str(getattr(error, "name", error))

    def release(self, address: int, nbytes: int) -> None:
        """Give an allocation back; errors at this point help nobody."""
        self._cuda.cudaFree(address)
        self.allocated_bytes -= nbytes


class _Allocation:
    """Frees its memory when the last view of it is gone."""

    def __init__(self, device: CudaDevice, address: int, nbytes: int) -> None:
        weakref.finalize(self, device.release, address, nbytes)


class CudaGraph:
    """Recorded work; its resources are freed with it."""

    def __init__(self, device: CudaDevice, executable: Any) -> None:
        self._device, self._executable = device, executable
        weakref.finalize(self, device.drop, executable)

    def launch(self) -> None:
        """Queue it on the device's stream.

        Raises:
            EngineError: CUDA refuses.
        """
        self._device.launch(self._executable)


def _pieces(nbytes: int) -> Iterator[tuple[int, int]]:
    """Offsets and lengths."""
    for start in range(0, nbytes, _HALF_BYTES):
        yield start, min(_HALF_BYTES, nbytes - start)
