"""ONNX to plan: strongly typed, so that a graph's own types are the precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hermes_edge.engines.trt.api import make_logger, no_gpu, subclass
from hermes_edge.engines.trt.profiles import Profile
from hermes_edge.engines.trt.shortage import is_short, shortage
from hermes_edge.errors import EngineError

# TensorRT's default is 3; 2 takes less memory and time to build (its documentation).
_LEVELS = {False: 3, True: 2}


class BuildProgress(Protocol):
    """Told how far a build is; phases nest."""

    def phase_started(self, phase: str, steps: int) -> None:
        """A phase of so many steps begins."""

    def step_done(self, phase: str, step: int) -> None:
        """A step of it is done."""

    def phase_finished(self, phase: str) -> None:
        """All of it is."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How plans are built.

    Attributes:
        workspace_bytes: most scratch memory of a kernel.
        low_memory: fewer kernels are tried, one at a time.
    """

    workspace_bytes: int = 2 << 30
    low_memory: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """What of them ties a plan down."""
        return (f"workspace={self.workspace_bytes}", *(("low-memory",) if self.low_memory else ()))


def build_plan(
    trt: Any,
    onnx: Path,
    profiles: Sequence[Profile],
    options: BuildOptions,
    timing_cache: bytes,
    progress: BuildProgress,
    memory: Callable[[], tuple[int, int]] | None = None,
) -> tuple[bytes, bytes]:
    """Build one graph.

    Args:
        trt: the module ``tensorrt``.
        onnx: the graph; weights beside it are found by its name.
        profiles: ranges of the inputs.
        options: limits.
        timing_cache: of builds before, or nothing.
        progress: told how far it is.
        memory: free bytes and all bytes of the device.

    Returns:
        The plan and the timing cache with what this build has measured.

    Raises:
        EngineError: no usable GPU, a graph that the parser refuses (all reasons are listed), or a
            build that fails, with what was asked and what is free where memory was short.
    """
    heard: list[str] = []
    logger = make_logger(trt, heard)
    try:
        builder = trt.Builder(logger)
    except TypeError:
        # pybind11 says so where the factory returns nothing, as it does without a driver.
        raise no_gpu("builder", heard) from None
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        faults = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
        raise EngineError(
            f"TensorRT {trt.__version__} cannot parse {onnx.name}",
            found="; ".join(faults) or "no reason given",
            fix=f"See which rule: hermes-edge verify BUNDLE --target tensorrt={_short(trt)}",
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    # TensorFloat-32 is on by default: ten bits of mantissa where the graph says float32.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = _LEVELS[options.low_memory]
    if options.low_memory:
        config.max_aux_streams = 0
    stopped: list[BaseException] = []
    config.progress_monitor = make_monitor(trt, progress, stopped)
    cache = config.create_timing_cache(timing_cache)
    config.set_timing_cache(cache, False)
    for ranges in profiles:
        profile = builder.create_optimization_profile()
        for name, bounds in ranges.items():
            profile.set_shape(name, bounds.least, bounds.usual, bounds.most)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if stopped:
        raise stopped[0]
    if plan is None:
        raise _failed(f"TensorRT cannot build {onnx.name}", heard, options, memory)
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _failed(
    problem: str,
    heard: Sequence[str],
    options: BuildOptions,
    memory: Callable[[], tuple[int, int]] | None,
) -> EngineError:
    knobs = "--low-memory, a smaller --workspace, --budget or --chunk-frames"
    if is_short(heard):
        fix = f"Try {knobs}, or end other programs"
        free = memory() if memory is not None else None
        return shortage(problem, heard, options.workspace_bytes, free, fix)
    found = "; ".join(heard[-3:]) or "no reason given"
    return EngineError(problem, found=found, fix=f"If memory was short: {knobs}")


def _describe(error: Any) -> str:
    return f"{error.node_operator()} {error.node_name()}: {error.desc()}"


def _short(trt: Any) -> str:
    return ".".join(str(trt.__version__).split(".")[:2])


def make_monitor(trt: Any, progress: BuildProgress, stopped: list[BaseException]) -> Any:
    """What is raised on the way, Ctrl-C too, is kept: thrown into TensorRT it ends the process."""

    def tell(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            stopped.append(error)

    def phase_start(self: Any, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        tell(lambda: progress.phase_started(phase_name, num_steps))

    def step_complete(self: Any, phase_name: str, step: int) -> bool:
        tell(lambda: progress.step_done(phase_name, step))
        return not stopped

    def phase_finish(self: Any, phase_name: str) -> None:
        tell(lambda: progress.phase_finished(phase_name))

    return subclass(trt.IProgressMonitor, phase_start, step_complete, phase_finish)
