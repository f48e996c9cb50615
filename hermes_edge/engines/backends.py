"""What runs a bundle's graphs, and whose memory they share: chosen once, by two words."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from hermes_edge.arguments import check_text, whole
from hermes_edge.contract import GraphName
from hermes_edge.engines.base import Engine
from hermes_edge.engines.bundle import Bundle
from hermes_edge.engines.cuda import CudaDevice, check_precision
from hermes_edge.engines.ort import split_device
from hermes_edge.engines.trt.api import import_tensorrt
from hermes_edge.engines.trt.folder import PlanFolder, place_of
from hermes_edge.engines.views import CpuDevice, Device
from hermes_edge.errors import SettingsError

BackendName = Literal["onnxruntime", "tensorrt"]
BACKEND_NAMES: tuple[BackendName, ...] = ("onnxruntime", "tensorrt")
# More than any machine has cores; ONNX Runtime starts as many as it is told.
_MOST_THREADS = 1024


class Backend(Protocol):
    """Engines of one kind on one device."""

    @property
    def device(self) -> Device:
        """The owner of all memory that is bound to the engines."""

    def engine(self, bundle: Bundle, name: GraphName) -> Engine:
        """One graph of a bundle, ready to run.

        Raises:
            BundleError: the bundle has no such graph, or its plan does not fit this machine.
            EngineError: the backend cannot be used, or refuses the graph.
        """


class OrtBackend:
    """ONNX Runtime, on the CPU or a GPU."""

    def __init__(self, device: Device, threads: int) -> None:
        self.device, self._threads = device, threads

    def engine(self, bundle: Bundle, name: GraphName) -> Engine:
        """A session of its own; on a GPU it computes on the device's stream."""
        stream = None
        if isinstance(self.device, CudaDevice):
            device, stream = self.device, self.device.stream
            check_precision(bundle.manifest.precision, device.gpu, device.compute_capability)
        return bundle.engine(name, self.device.name, self._threads, stream=stream)


class TensorRTBackend:
    """Plans that were built on this machine."""

    def __init__(self, device: CudaDevice, trt: Any) -> None:
        self.device, self._trt = device, trt
        self._folder: PlanFolder | None = None

    def engine(self, bundle: Bundle, name: GraphName) -> Engine:
        """The plan of a graph, checked against this machine and this bundle."""
        if self._folder is None or self._folder.bundle is not bundle:
            self._folder = PlanFolder.open(bundle, place_of(self._trt, self.device))
        return self._folder.engine(self._trt, self.device, name)


def open_backend(device: str, backend: str, threads: int = 0) -> Backend:
    """A backend by name.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        backend: one of :data:`BACKEND_NAMES`.
        threads: of ONNX Runtime; 0 is one per core.

    Raises:
        SettingsError: an unknown name, a number of threads that cannot be, or TensorRT on the CPU.
        DependencyError: a package of the backend is not installed.
        EngineError: there is no such GPU.
    """
    check_text(device=device)
    threads = whole("threads", threads, least=0, most=_MOST_THREADS)
    if backend not in BACKEND_NAMES:
        raise SettingsError(
            "unknown backend", required=" or ".join(BACKEND_NAMES), found=repr(backend)
        )
    if backend == "tensorrt":
        trt, gpu = open_gpu(device)
        return TensorRTBackend(gpu, trt)
    kind, index = split_device(device)
    return OrtBackend(CpuDevice() if kind == "cpu" else CudaDevice(index), threads)


def open_gpu(device: str) -> tuple[Any, CudaDevice]:
    """TensorRT's module and a GPU.

    Raises:
        SettingsError: an unknown name, or the CPU.
        DependencyError: TensorRT or cuda-bindings is not installed.
        EngineError: there is no such GPU.
    """
    kind, index = split_device(device)
    if kind == "cpu":
        raise SettingsError(
            "TensorRT runs on NVIDIA GPUs", required="device cuda or cuda:N", found=device
        )
    trt = import_tensorrt()
    return trt, CudaDevice(index)
