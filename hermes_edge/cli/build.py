"""``hermes-edge build``: TensorRT plans of a bundle, for the GPU of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from hermes_edge.cli.output import size, stdout
from hermes_edge.cli.verify import print_parity
from hermes_edge.errors import SettingsError
from hermes_edge.manifest import ParityCheck, ParityReport
from hermes_edge.settings import Settings
from hermes_edge.units import parse_bytes

if TYPE_CHECKING:
    from hermes_edge.engines import Bundle
    from hermes_edge.engines.cuda import CudaDevice
    from hermes_edge.engines.trt.folder import PlanFolder
    from hermes_edge.engines.trt.profiles import Limits
    from hermes_edge.engines.trt.record import Place

AUTO = "auto"


class BuildBars:
    """The builder's phases, each as a bar that goes when its phase ends."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._graph = ""

    def graph(self, name: str) -> BuildBars:
        """The next graph begins."""
        self._graph = name
        return self

    def phase_started(self, phase: str, steps: int) -> None:
        """A bar of so many steps."""
        self._tasks[phase] = self._bars.add_task(f"{self._graph}: {phase}", total=steps)

    def step_done(self, phase: str, step: int) -> None:
        """One step further."""
        self._bars.update(self._tasks[phase], completed=step + 1)

    def phase_finished(self, phase: str) -> None:
        """The bar goes."""
        self._bars.remove_task(self._tasks.pop(phase))


def build(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    device: Annotated[str, typer.Option(help="GPU to build on and for.")] = "cuda:0",
    device_key: Annotated[
        str,
        typer.Option(
            metavar="auto|KEY",
            help="Folder of the plans, as sm87-trt10.3.0-linux-aarch64. Plans run where they were "
            "built: any other than this machine's own (auto) is refused.",
        ),
    ] = AUTO,
    budget: Annotated[
        int | None,
        typer.Option(
            help="Largest budget of a session, in tokens.",
            show_default="4000, or what the model's positions allow",
        ),
    ] = None,
    chunk_frames: Annotated[int | None, typer.Option(help="Longest chunk.")] = None,
    reserve_tokens: Annotated[int, typer.Option(help="Longest question with its answer.")] = int(
        Settings.model_fields["reserve_tokens"].default
    ),
    slice_workspace: Annotated[
        str, typer.Option(help="Largest of a session, as of hermes-edge run.")
    ] = "64MiB",
    workspace: Annotated[str, typer.Option(help="Most scratch memory of a kernel.")] = "2GiB",
    low_memory: Annotated[
        bool, typer.Option("--low-memory", help="Try fewer kernels, one at a time.")
    ] = False,
    precision_check: Annotated[
        bool,
        typer.Option(
            "--precision-check",
            help="Compare every plan with its graph in ONNX Runtime on the CPU, and keep none "
            "where one differs by more than an export may (exit code 5).",
        ),
    ] = False,
) -> None:
    """Build TensorRT plans on the board that will run them. Not yet run on hardware."""
    from hermes_edge.engines import Bundle
    from hermes_edge.engines.backends import open_gpu
    from hermes_edge.engines.ort import import_onnxruntime
    from hermes_edge.engines.trt.build import build_bundle
    from hermes_edge.engines.trt.builder import BuildOptions
    from hermes_edge.engines.trt.folder import place_of
    from hermes_edge.runtime.limits import session_limits

    nbytes = parse_bytes(workspace, "--workspace")
    slices = parse_bytes(slice_workspace, "--slice-workspace")
    opened = Bundle.open(bundle)
    reference: Bundle | None = None
    limits = session_limits(opened, budget, chunk_frames, reserve_tokens, slices)
    if precision_check:
        # A build takes long: what the check needs is looked for before.
        import_onnxruntime()
        reference = _reference(opened)
    trt, gpu = open_gpu(device)
    here = place_of(trt, gpu)
    _check_key(device_key, here)
    measured: list[ParityCheck] = []
    try:
        with Progress(console=Console(stderr=True), transient=True) as bars:
            folder = build_bundle(
                trt,
                opened,
                here,
                limits,
                BuildOptions(nbytes, low_memory),
                BuildBars(bars).graph,
                memory=gpu.memory,
                check=_precision(trt, gpu, limits, bars, measured, reference)
                if reference is not None
                else None,
            )
    finally:
        if measured:
            print_parity(ParityReport(reference="ONNX Runtime on the CPU", checks=tuple(measured)))
    total = sum(path.stat().st_size for path in folder.glob("*.plan"))
    stdout().print(f"{opened.manifest.model_id} -> {folder} ({size(total)})")


def _check_key(key: str, here: Place) -> None:
    if key not in (AUTO, here.device_key):
        raise SettingsError(
            "plans cannot be built for another machine",
            required=f"--device-key {AUTO} or {here.device_key}",
            found=key,
            fix="Run hermes-edge build on the machine that shall run them",
        )


def _reference(bundle: Bundle) -> Bundle:
    """What ONNX Runtime can run on the CPU in place of a bundle.

    Raises:
        DependencyError: a bundle in bf16, without the packages of the export that widen it.
    """
    if bundle.manifest.precision != "bf16":
        return bundle
    from hermes_edge.export.widened import WidenedBundle

    return WidenedBundle(bundle, rounded=True)


def _precision(
    trt: Any,
    gpu: CudaDevice,
    limits: Limits,
    bars: Progress,
    measured: list[ParityCheck],
    reference: Bundle,
) -> Callable[[PlanFolder], None]:
    """A check of complete plans that fills ``measured`` and then refuses what differs."""
    from hermes_edge.engines.precision import compare_with_cpu, require_parity

    def check(plans: PlanFolder) -> None:
        names = list(plans.bundle.manifest.graphs)
        task = bars.add_task("precision", total=len(names))
        for name in names:
            measured.append(
                compare_with_cpu(
                    plans.bundle,
                    name,
                    limits,
                    gpu,
                    lambda n: plans.engine(trt, gpu, n),
                    reference,
                )
            )
            bars.advance(task)
        require_parity(measured)

    return check
