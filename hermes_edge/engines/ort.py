"""ONNX Runtime behind the Engine protocol: bound to raw addresses, never copied.

ONNX Runtime falls back to the CPU without an error when a provider cannot be created (seen with
1.20 to 1.32), so the providers that a session really has are compared with those asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hermes_edge.contract import DType, GraphSpec
from hermes_edge.engines.views import View
from hermes_edge.errors import BundleError, DependencyError, EngineError, SettingsError
from hermes_edge.installed import WHEELS, installed_wheels

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
}
# onnx.TensorProto.BFLOAT16: a binding takes the number, and refuses numpy's type (1.20 to 1.32).
_BFLOAT16 = 16


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        DependencyError: it is not installed, with the command that installs it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            "ONNX Runtime cannot be imported",
            required="the package onnxruntime (CPU) or onnxruntime-gpu",
            found=str(error),
            fix="Install it with: pip install 'hermes-edge[cpu]'",
        ) from None
    return onnxruntime


def split_device(device: str) -> tuple[str, int]:
    """``cuda:1`` to ``("cuda", 1)``.

    Raises:
        SettingsError: the name is not ``cpu``, ``cuda`` or ``cuda:N``.
    """
    match = re.fullmatch("(cpu)|(cuda)(?::([0-9]+))?", device)
    if match is None:
        raise SettingsError("unknown device", required="cpu, cuda or cuda:N", found=repr(device))
    return match[1] or match[2], int(match[3] or 0)


@cache
def _share_workspace(ort: Any) -> None:
    """One CPU arena for all engines, which grows by what is asked.

    Engines of a runtime run one at a time, so the workspace is the largest engine's, not the sum.
    With an arena of each engine's own, grown in powers of two, a session of the 0.5B geometry left
    4,681 MB resident instead of 4,412 MB, at the same speed (docs/log.md, 2026-11-24).
    """
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    as_requested = {"arena_extend_strategy": 1, "max_mem": 0}
    defaults = {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    try:
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg(as_requested | defaults))
    except RuntimeError as error:
        # 1.20 refuses a second one, 1.22 to 1.32 do not: the process has made an arena of its own.
        if "already been registered" not in str(error):
            raise


class OrtEngine:
    """One ONNX graph as an inference session; calls from several threads are safe."""

    def __init__(
        self,
        path: Path,
        graph: GraphSpec,
        device: str = "cpu",
        threads: int = 0,
        stream: int | None = None,
        *,
        quantized: bool = False,
        exact: bool = False,
    ) -> None:
        """Load and check one graph.

        Args:
            path: the ONNX file.
            graph: what the contract demands of it.
            device: ``cpu``, ``cuda`` or ``cuda:N``.
            threads: 0 is one per core.
            stream: address of the CUDA stream to compute on, or one of ONNX Runtime's own.
            quantized: whether the graph has integer weights.
            exact: multiply integer weights in the graph's precision. Otherwise the CPU rounds the
                other side to eight bits, row by row: at 896 x 4864 in int8, 1 row takes 0.2 ms
                instead of 18 (ONNX Runtime 1.32, AVX2).

        Raises:
            SettingsError: unknown device name.
            DependencyError: onnxruntime is not installed.
            EngineError: the provider is not really used, ONNX Runtime refuses the graph, or the CPU
                is asked for bf16.
            BundleError: the graph's tensors differ from the contract (all are listed).
        """
        ort = import_onnxruntime()
        kind, index = split_device(device)
        if kind == "cpu":
            _check_cpu(path, graph)
        self._graph = graph
        self._device = (kind, index)
        self._types = {t.name: _element_type(t.dtype) for t in (*graph.inputs, *graph.outputs)}
        products = Products(quantized, exact)
        self._session = _open_session(ort, path, (kind, index), threads, stream, products)
        used = self._session.get_providers()[0]
        if used != _PROVIDERS[kind]:
            raise EngineError(
                f"{path.name} would not run on {device}",
                required=_PROVIDERS[kind],
                found=used,
                fix="See what is usable with: hermes-edge doctor",
            )
        _check_tensors(path, graph, self._session)
        self._run_options = ort.RunOptions()

    @property
    def graph(self) -> GraphSpec:
        """The surface of the graph, as in the contract."""
        return self._graph

    def run(self, inputs: Mapping[str, View], outputs: Mapping[str, View]) -> None:
        """Run with every tensor at its own address.

        Raises:
            EngineError: ONNX Runtime refused or failed, with its own words.
        """
        binding = self._session.io_binding()
        kind, index = self._device
        try:
            for name, view in inputs.items():
                element = self._types[name]
                binding.bind_input(name, kind, index, element, view.shape, view.address)
            for name, view in outputs.items():
                element = self._types[name]
                binding.bind_output(name, kind, index, element, view.shape, view.address)
            self._session.run_with_iobinding(binding, self._run_options)
        except KeyError as error:
            raise EngineError(f"{self._graph.name} has no tensor {error}") from None
        # ONNX Runtime raises plain RuntimeError, ValueError and a dozen types of its own.
        except Exception as error:
            raise EngineError(f"a call of {self._graph.name} failed", found=str(error)) from error


def _element_type(dtype: DType) -> Any:
    return _BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)


def _check_cpu(path: Path, graph: GraphSpec) -> None:
    # MatMul, Add, Mul and Sigmoid among others have no kernel (1.20 to 1.32).
    if any(tensor.dtype == "bfloat16" for tensor in (*graph.inputs, *graph.outputs)):
        raise EngineError(
            f"ONNX Runtime cannot compute {path} on the CPU",
            required="fp32 or fp16, or a CUDA device",
            found="bf16",
            fix="Export with --dtype fp32 or fp16, or run it on a GPU: --device cuda:0",
        )


@dataclass(frozen=True, slots=True)
class Products:
    """How matrices are multiplied; see :class:`OrtEngine`."""

    quantized: bool
    exact: bool

    @property
    def without(self) -> list[str]:
        """Optimizers that are left out.

        MatMulAddFusion takes products with a residual first, and nothing fuses their integers then
        (1.23, 1.32): of a decoder of 0.5B in int4 a further token took 181 ms, and 30 without it.
        """
        return ["MatMulAddFusion"] if self.quantized else []


def _open_session(
    ort: Any,
    path: Path,
    device: tuple[str, int],
    threads: int,
    stream: int | None,
    products: Products,
) -> Any:
    kind, index = device
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Memory patterns are cached per combination of input shapes, and S grows with every call.
    options.enable_mem_pattern = False
    if products.exact:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if kind == "cpu":
        _share_workspace(ort)
        options.add_session_config_entry("session.use_env_allocators", "1")
    provider: Any = _PROVIDERS[kind]
    if kind != "cpu":
        # As large as asked for: the default doubles its arena, and a board's memory is shared.
        settings = {"device_id": index, "arena_extend_strategy": "kSameAsRequested"}
        if stream is not None:
            settings["user_compute_stream"] = str(stream)
        provider = (provider, settings)
    if _PROVIDERS[kind] not in ort.get_available_providers():
        raise _no_provider(kind, ort.get_available_providers(), installed_wheels())
    try:
        return ort.InferenceSession(
            str(path), options, providers=[provider], disabled_optimizers=products.without
        )
    except Exception as error:
        raise EngineError(f"ONNX Runtime {ort.__version__} cannot load {path}: {error}") from error


def _no_provider(kind: str, usable: Sequence[str], wheels: Sequence[str]) -> EngineError:
    if len(wheels) > 1:
        return EngineError(
            f"ONNX Runtime is installed twice and cannot use {kind}",
            required=f"one of {' and '.join(WHEELS)}, which overwrite each other's files",
            found=" and ".join(wheels),
            fix="Mend it with: pip uninstall -y onnxruntime onnxruntime-gpu && "
            "pip install 'hermes-edge[cuda]'",
        )
    return EngineError(
        f"this ONNX Runtime cannot use {kind}",
        required=_PROVIDERS[kind],
        found=", ".join(usable),
        fix="Install it with: pip uninstall onnxruntime && pip install 'hermes-edge[cuda]'",
    )


def _check_tensors(path: Path, graph: GraphSpec, session: Any) -> None:
    required = {t.name: str(t) for t in (*graph.inputs, *graph.outputs)}
    found = {
        node.name: f"{node.name} {_TYPES.get(node.type, node.type)} "
        f"[{', '.join(map(str, node.shape))}]"
        for node in (*session.get_inputs(), *session.get_outputs())
    }
    faults = [
        f"required {required.get(name, 'no such tensor')}, found {found.get(name, f'no {name}')}"
        for name in sorted(required.keys() | found.keys())
        if required.get(name) != found.get(name)
    ]
    if faults:
        raise BundleError(
            f"{path} does not fit the contract: {'; '.join(faults)}",
            fix="Export again with: hermes-edge export CHECKPOINT -o BUNDLE",
        )
