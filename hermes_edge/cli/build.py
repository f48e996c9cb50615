"""``hermes-edge build``: TensorRT plans of a bundle, for the GPU of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from hermes_edge.cli.output import size, stdout
from hermes_edge.errors import SettingsError
from hermes_edge.settings import Settings, parse_budget


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
    budget: Annotated[int, typer.Option(help="Largest budget of a session, in tokens.")] = 4000,
    chunk_frames: Annotated[int | None, typer.Option(help="Longest chunk.")] = None,
    reserve_tokens: Annotated[int, typer.Option(help="Longest question with its answer.")] = int(
        Settings.model_fields["reserve_tokens"].default
    ),
    workspace: Annotated[str, typer.Option(help="Most scratch memory of a kernel.")] = "2GiB",
    low_memory: Annotated[
        bool, typer.Option("--low-memory", help="Try fewer kernels, one at a time.")
    ] = False,
) -> None:
    """Build TensorRT plans on the board that will run them. Not yet run on hardware."""
    from hermes_edge.engines import Bundle
    from hermes_edge.engines.backends import open_gpu
    from hermes_edge.engines.trt.build import build_bundle
    from hermes_edge.engines.trt.builder import BuildOptions
    from hermes_edge.engines.trt.folder import place_of
    from hermes_edge.runtime.limits import session_limits

    nbytes = parse_budget(workspace).nbytes
    if nbytes is None:
        raise SettingsError("unknown --workspace", required="such as 2GiB", found=workspace)
    opened = Bundle.open(bundle)
    limits = session_limits(opened, budget, chunk_frames, reserve_tokens)
    trt, gpu = open_gpu(device)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        folder = build_bundle(
            trt,
            opened,
            place_of(trt, gpu),
            limits,
            BuildOptions(nbytes, low_memory),
            BuildBars(bars).graph,
        )
    total = sum(path.stat().st_size for path in folder.glob("*.plan"))
    stdout().print(f"{opened.manifest.model_id} -> {folder} ({size(total)})")
