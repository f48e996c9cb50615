"""A plan behind the Engine protocol: every tensor at its own address, on the device's stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hermes_edge.contract import GraphSpec, is_static
from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.engines.trt.api import make_logger, no_gpu
from hermes_edge.engines.trt.profiles import Profile
from hermes_edge.engines.trt.replay import Replay
from hermes_edge.engines.trt.shortage import is_short, shortage
from hermes_edge.engines.views import View
from hermes_edge.errors import EngineError

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


class TensorRTEngine:
    """One plan with one execution context for each of its profiles.

    Attributes:
        replay: of a static decoder's single rows, the last profile, whose bindings repeat; with
            counts of what was run, captured and launched. None for every other graph.
    """

    def __init__(
        self,
        trt: Any,
        plan: bytes,
        graph: GraphSpec,
        profiles: Sequence[Profile],
        device: CudaDevice,
    ) -> None:
        """Load a plan that has been checked to fit this machine.

        Raises:
            EngineError: no usable GPU, TensorRT refuses the plan, there is no memory for it, or
                its tensors differ from the contract.
        """
        self._graph, self._profiles, self._device = graph, tuple(profiles), device
        self._heard: list[str] = []
        logger = make_logger(trt, self._heard)
        try:
            self._runtime = trt.Runtime(logger)
        except TypeError:
            raise no_gpu("runtime", self._heard) from None
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            problem = f"TensorRT cannot load the plan of {graph.name}"
            if is_short(self._heard):
                raise self._short(problem, len(plan))
            raise self._failed(problem, "Build it again with: hermes-edge build BUNDLE")
        self._check_tensors(trt)
        self._contexts = [self._context(index) for index in range(len(self._profiles))]
        self.replay = Replay(device) if is_static(graph.inputs) else None
        # What stands in for tensors without elements.
        self._nothing = {
            tensor.name: device.allocate(_at_least_one(tensor.axes), tensor.dtype)
            for tensor in (*graph.inputs, *graph.outputs)
        }

    @property
    def graph(self) -> GraphSpec:
        """The surface of the graph, as in the contract."""
        return self._graph

    def run(self, inputs: Mapping[str, View], outputs: Mapping[str, View]) -> None:
        """Queue a call; results are there for whatever follows on the device's stream.

        Raises:
            EngineError: no profile holds these shapes, or TensorRT refuses or fails.
        """
        given = {name: self._filled(name, view) for name, view in inputs.items()}
        taken = {name: self._filled(name, view) for name, view in outputs.items()}
        index = self._profile_for(given)
        if self.replay is not None and index == len(self._profiles) - 1:
            self.replay.run(
                {**given, **taken}, lambda stream: self._enqueue(index, given, taken, stream)
            )
        else:
            self._enqueue(index, given, taken, self._device.stream)

    def _enqueue(
        self, index: int, given: Mapping[str, View], taken: Mapping[str, View], stream: int
    ) -> None:
        context = self._contexts[index]
        for name, view in given.items():
            if not context.set_input_shape(name, view.shape):
                raise self._failed(f"{self._graph.name}: {name} {list(view.shape)} is refused")
            context.set_tensor_address(name, view.address)
        for name, view in taken.items():
            context.set_tensor_address(name, view.address)
        missing = context.infer_shapes()
        if missing:
            raise self._failed(f"{self._graph.name} was called without {', '.join(missing)}")
        if not context.execute_async_v3(stream):
            raise self._failed(f"a call of {self._graph.name} failed")

    def _filled(self, name: str, view: View) -> View:
        return view if view.nbytes else self._nothing[name]

    def _profile_for(self, inputs: Mapping[str, View]) -> int:
        """The narrowest profile that holds the shapes: the last one that does."""
        fitting = [
            index
            for index, profile in enumerate(self._profiles)
            if all(profile[name].holds(view.shape) for name, view in inputs.items())
        ]
        if fitting:
            return fitting[-1]
        widest = self._profiles[0]
        faults = [
            f"{name} {list(widest[name].least)} to {list(widest[name].most)}, found "
            f"{list(view.shape)}"
            for name, view in inputs.items()
            if not widest[name].holds(view.shape)
        ]
        raise EngineError(
            f"the plan of {self._graph.name} is built for smaller sessions",
            required="; ".join(faults),
            fix="Build it again with a larger --budget, --chunk-frames or --reserve-tokens, or "
            "ask for less",
        )

    def _context(self, index: int) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            problem = f"there is no device memory to run {self._graph.name}"
            raise self._short(problem, self._engine.device_memory_size_v2)
        if not context.set_optimization_profile_async(index, self._device.stream):
            raise self._failed(f"profile {index} of {self._graph.name} is refused")
        return context

    def _check_tensors(self, trt: Any) -> None:
        required = {
            t.name: (t.dtype, len(t.axes)) for t in (*self._graph.inputs, *self._graph.outputs)
        }
        found = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            kind = self._engine.get_tensor_dtype(name).name
            found[name] = (_TYPES.get(kind, kind), len(self._engine.get_tensor_shape(name)))
        faults = [
            f"{name}: required {required.get(name, 'none')}, found {found.get(name, 'none')}"
            for name in sorted(required.keys() | found.keys())
            if required.get(name) != found.get(name)
        ]
        if len(self._profiles) != self._engine.num_optimization_profiles:
            faults.append(
                f"required {len(self._profiles)} profiles, found "
                f"{self._engine.num_optimization_profiles}"
            )
        if faults:
            raise EngineError(
                f"the plan of {self._graph.name} does not fit the contract: {'; '.join(faults)}",
                fix="Build it again with: hermes-edge build BUNDLE",
            )

    def _failed(self, problem: str, fix: str | None = None) -> EngineError:
        reasons = "; ".join(self._heard[-3:]) or "no reason given"
        self._heard.clear()
        return EngineError(problem, found=reasons, fix=fix)

    def _short(self, problem: str, asked: int) -> EngineError:
        fix = "Build again with a smaller --budget or --chunk-frames, or end other programs"
        return shortage(problem, self._heard, asked, self._device.memory(), fix)


def _at_least_one(axes: Sequence[int | str]) -> tuple[int, ...]:
    return tuple(axis if isinstance(axis, int) else 1 for axis in axes)
