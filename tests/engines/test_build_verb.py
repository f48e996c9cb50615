"""``hermes-edge build`` from its flags to its folder, and plans against ONNX Runtime."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner

from hermes_edge.cli.app import app
from hermes_edge.cli.build import BuildBars
from hermes_edge.contract import GraphName
from hermes_edge.engines import Bundle, CpuDevice, Engine, View, host_array
from hermes_edge.engines import backends as backends_module
from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.engines.precision import compare_with_cpu
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.engines.trt.record import this_system
from hermes_edge.shipped import DEMO_VIDEO, TINY_BUNDLE

LIMITS = Limits(capacity_rows=300, pass_rows=96, probe_rows=96, frames=2)
# What the versions share is tested in one.
one_version = pytest.mark.parametrize("tensorrt", ["10.3.0"], indirect=True)
BuildVerb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def build(tensorrt: Any, cuda: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> BuildVerb:
    """The verb, on the stand-ins for GPU and TensorRT."""
    gpu = CudaDevice(0, cuda)
    monkeypatch.setattr(backends_module, "open_gpu", lambda device: (tensorrt, gpu))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*options: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["build", str(bundle.path), "--budget", "256", *options])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        # The bars end with an empty line where there is no terminal.
        return result.exit_code, result.stdout, result.stderr.lstrip("\n")

    return call


def key_of(tensorrt: Any) -> str:
    return f"sm87-trt{tensorrt.__version__}-{this_system()}"


@pytest.mark.parametrize("key", ["auto", "this machine's"])
def test_plans_go_into_the_folder_of_this_machine(
    build: BuildVerb, bundle: Bundle, tensorrt: Any, key: str
) -> None:
    name = key_of(tensorrt)
    code, stdout, stderr = build("--device-key", name if key != "auto" else key)
    assert (code, stderr) == (0, "")
    assert stdout.startswith(f"{bundle.manifest.model_id} -> {bundle.path}/engines/{name} (")
    assert [path.name for path in (bundle.path / "engines").iterdir()] == [name]


@one_version
def test_a_key_of_another_machine_is_refused_before_the_build(
    build: BuildVerb, bundle: Bundle, tensorrt: Any
) -> None:
    assert build("--device-key", "sm110-trt10.16.2.10-linux-aarch64") == (
        2,
        "",
        "error: plans cannot be built for another machine: required --device-key auto or "
        f"{key_of(tensorrt)}, found sm110-trt10.16.2.10-linux-aarch64. Run hermes-edge build on "
        "the machine that shall run them\n",
    )
    assert not tensorrt.builds
    assert not (bundle.path / "engines").exists()


def test_workspace_and_low_memory_reach_the_builder(
    build: BuildVerb, bundle: Bundle, tensorrt: Any
) -> None:
    assert build("--workspace", "512MiB", "--low-memory")[0] == 0
    for made in tensorrt.builds:
        assert (made["workspace"], made["level"]) == (512 << 20, 2)
    record = json.loads((bundle.path / "engines" / key_of(tensorrt) / "build.json").read_text())
    assert record["plans"]["decoder"]["flags"] == [f"workspace={512 << 20}", "low-memory"]


def test_precision_is_reported_graph_by_graph(build: BuildVerb, bundle: Bundle) -> None:
    code, stdout, stderr = build("--precision-check")
    assert (code, stderr) == (0, "")
    assert "parity with ONNX Runtime on the CPU" in stdout
    for name in bundle.manifest.graphs:
        # The stand-in computes with ONNX Runtime itself: nothing differs.
        row = rf"^ *{name} +0 +(0\.0001|1e-05) +of the maximum +pass *$"
        assert re.search(row, stdout, re.M), stdout


@one_version
def test_plans_that_differ_are_not_kept(build: BuildVerb, bundle: Bundle, tensorrt: Any) -> None:
    assert build()[0] == 0
    kept = (bundle.path / "engines" / key_of(tensorrt) / "build.json").read_bytes()
    tensorrt.error = 5e-5
    # Graphs with weights may differ by 1e-4, the others by 1e-5.
    code, stdout, stderr = build("--precision-check", "--low-memory")
    assert code == 5
    assert re.fullmatch(
        r"error: 2 of 5 plans differ from ONNX Runtime on the CPU: "
        r"score: required at most 1e-05 of the maximum, found 5e-05; "
        r"compact: required at most 1e-05 of the maximum, found 5e-05\. "
        r"They are not kept; build without --precision-check to keep such plans\n",
        stderr,
    ), stderr
    assert len(re.findall(r" pass *$", stdout, re.M)) == 3
    assert len(re.findall(r" FAIL *$", stdout, re.M)) == 2
    assert (bundle.path / "engines" / key_of(tensorrt) / "build.json").read_bytes() == kept
    assert [path.name for path in (bundle.path / "engines").iterdir()] == [key_of(tensorrt)]


class Perturbed:
    """The CPU's engine with one element of one output changed."""

    def __init__(self, engine: Engine, output: str, element: float) -> None:
        self.engine, self.output, self.element = engine, output, element
        self.shapes: list[dict[str, tuple[int, ...]]] = []

    @property
    def graph(self) -> Any:
        return self.engine.graph

    def run(self, inputs: Mapping[str, View], outputs: Mapping[str, View]) -> None:
        self.shapes.append({name: view.shape for name, view in inputs.items()})
        self.engine.run(inputs, outputs)
        array = host_array(outputs[self.output])
        if array.size:
            array[(0,) * array.ndim] = self.element


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("vision", "visual_tokens"),
        ("decoder", "logits"),
        ("decoder", "probe_queries"),
        ("decoder", "present.9.value"),
        ("score", "scores"),
        ("compact", "new_keys"),
        ("embedding_probe", "probe_keys"),
    ],
)
@pytest.mark.parametrize("element", [1.0e4, float("nan")], ids=["far off", "not a number"])
def test_one_wrong_element_fails(name: GraphName, output: str, element: float) -> None:
    bundle = Bundle.open(TINY_BUNDLE, check_hashes=False)
    broken = Perturbed(bundle.engine(name, exact=True), output, element)
    check = compare_with_cpu(bundle, name, LIMITS, CpuDevice(), lambda _: broken)
    assert (check.name, check.passed) == (name, False)
    assert np.isnan(check.measured) == np.isnan(element)


def test_calls_of_the_decoder_are_those_of_a_stream() -> None:
    """Without memory, behind it with probes, and row by row; never larger than the limits."""
    bundle = Bundle.open(TINY_BUNDLE, check_hashes=False)
    for limits, rows, probes in (
        (LIMITS, 48, 8),
        (Limits(capacity_rows=20, pass_rows=5, probe_rows=3, frames=1), 5, 3),
        (Limits(capacity_rows=20, pass_rows=1, probe_rows=3, frames=1), 1, 0),
    ):
        seen = Perturbed(bundle.engine("decoder", exact=True), "logits", 0.0)
        compare_with_cpu(bundle, "decoder", limits, CpuDevice(), {"decoder": seen}.__getitem__)
        shapes = [
            (s["inputs_embeds"][0], s["past_key_values.0.key"][0], s["probe_rows"][0])
            for s in seen.shapes
        ]
        assert shapes == [(rows, 1, 0), (rows, rows, probes), (1, rows, 0)]


def test_bars_show_graph_and_phase() -> None:
    screen = io.StringIO()
    with Progress(console=Console(file=screen, force_terminal=True, width=80)) as progress:
        bars = BuildBars(progress).graph("decoder")
        bars.phase_started("Building", 2)
        bars.phase_started("Timing", 4)
        bars.step_done("Timing", 0)
        assert [(t.description, t.completed, t.total) for t in progress.tasks] == [
            ("decoder: Building", 0, 2),
            ("decoder: Timing", 1, 4),
        ]
        progress.refresh()
        bars.phase_finished("Timing")
        bars.phase_finished("Building")
        assert not progress.tasks
    assert "decoder: Timing" in screen.getvalue()


@one_version
def test_an_interrupt_cancels_the_build_and_keeps_older_plans(
    build: BuildVerb, bundle: Bundle, tensorrt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C arrives in a callback, where TensorRT must not see it."""
    assert build()[0] == 0
    kept = (bundle.path / "engines" / key_of(tensorrt) / "build.json").read_bytes()
    built = len(tensorrt.builds)

    def interrupted(self: BuildBars, phase: str, step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BuildBars, "step_done", interrupted)
    assert build("--low-memory")[0] == 130
    # TensorRT was told to end in the middle, and did.
    assert len(tensorrt.builds) == built
    assert (bundle.path / "engines" / key_of(tensorrt) / "build.json").read_bytes() == kept
    assert [path.name for path in (bundle.path / "engines").iterdir()] == [key_of(tensorrt)]


def cut(folder: Path) -> None:
    plan = folder / "decoder.plan"
    plan.write_bytes(plan.read_bytes()[:-1])


def of_another_version(folder: Path) -> None:
    record = folder / "build.json"
    record.write_text(re.sub(r'"tensorrt": ?"[^"]+"', '"tensorrt":"9.9.9"', record.read_text()))


def gone(folder: Path) -> None:
    folder.rename(folder.with_name("sm89-trt9.9.9-linux-x86_64"))


def whole(folder: Path) -> None:
    """Nothing is wrong with the plans."""


@one_version
@pytest.mark.parametrize(
    ("damage", "budget", "free_bytes", "code", "message"),
    [
        (
            cut,
            256,
            None,
            4,
            r"\S+ cannot be used here: decoder\.plan: required \d+ bytes, found \d+",
        ),
        (
            of_another_version,
            256,
            None,
            4,
            r"\S+ cannot be used here: TensorRT: required 10\.3\.0, found 9\.9\.9",
        ),
        (
            gone,
            256,
            None,
            4,
            r"\S+ has no plans for this machine: required sm87-\S+, found sm89-\S+",
        ),
        (
            whole,
            512,
            None,
            6,
            r"the plan of \w+ is built for smaller sessions: required .+\. Build it again with .+",
        ),
        (
            whole,
            256,
            1_000_000,
            7,
            r"the memory of demo does not fit cuda:0: required 11,680,768 bytes \(.+\), found .+",
        ),
        (
            whole,
            256,
            12_000_000,
            7,
            r"cuda:0 is out of memory: required [\d,]+ bytes more, found .+",
        ),
    ],
    ids=[
        "truncated",
        "other TensorRT",
        "other machine",
        "larger session",
        "no memory",
        "no staging",
    ],
)
def test_plans_that_cannot_serve_a_stream_end_it_with_one_line(
    build: BuildVerb,
    bundle: Bundle,
    tensorrt: Any,
    cuda: Any,
    damage: Callable[[Path], None],
    budget: int,
    free_bytes: int | None,
    code: int,
    message: str,
) -> None:
    assert build()[0] == 0
    damage(bundle.path / "engines" / key_of(tensorrt))
    if free_bytes is not None:
        cuda.total_bytes = cuda.used_bytes + free_bytes
    command = ["run", str(DEMO_VIDEO), "--bundle", str(bundle.path), "--ask", "0:01 What is it?"]
    gpu = ["--device", "cuda:0", "--backend", "tensorrt", "--budget", str(budget)]
    result = CliRunner().invoke(app, [*command, *gpu])
    assert (result.exit_code, result.stdout) == (code, "")
    assert re.fullmatch(f"error: {message}.*\n", result.stderr), result.stderr
    assert isinstance(result.exception, SystemExit)
