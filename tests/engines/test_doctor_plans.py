"""``hermes-edge doctor`` on folders of plans: for this machine, for others, and damaged ones."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hermes_edge.cli.app import app
from hermes_edge.cli.checks import Check
from hermes_edge.cli.hardware import Machine
from hermes_edge.cli.plans import Here, check_plans, find_bundles, look_here
from hermes_edge.engines import Bundle
from hermes_edge.engines.cuda import CudaDevice
from hermes_edge.engines.trt.build import build_bundle
from hermes_edge.engines.trt.builder import BuildOptions
from hermes_edge.engines.trt.folder import place_of
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.engines.trt.record import this_system
from hermes_edge.errors import EngineError, SettingsError
from hermes_edge.shipped import TINY_BUNDLE

# Records of all versions are alike.
one_version = pytest.mark.parametrize("tensorrt", ["10.3.0"], indirect=True)
LIMITS = Limits(capacity_rows=300, pass_rows=96, probe_rows=96, frames=2)


class Silent:
    """A build that nobody watches."""

    def phase_started(self, phase: str, steps: int) -> None: ...

    def step_done(self, phase: str, step: int) -> None: ...

    def phase_finished(self, phase: str) -> None: ...


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    return Path(shutil.copytree(TINY_BUNDLE, path, copy_function=os.symlink))


@pytest.fixture
def plans(bundle: Path, tensorrt: Any, cuda: Any) -> Path:
    """Plans of an Orin, built on the stand-ins."""
    device = CudaDevice(0, cuda)
    opened, here = Bundle.open(bundle, check_hashes=False), place_of(tensorrt, device)
    return build_bundle(tensorrt, opened, here, LIMITS, BuildOptions(), lambda name: Silent())


def here_of(module: Any, **changes: str) -> Here:
    facts = {
        "tensorrt": module.__version__,
        "compute_capability": "8.7",
        "gpu": "Orin",
        "system": this_system(),
    }
    return Here({**facts, **changes})


def test_plans_for_this_machine(bundle: Path, plans: Path, tensorrt: Any) -> None:
    assert list(check_plans(bundle, here_of(tensorrt))) == [
        Check("plans of tiny", "pass", f"{plans.name}: 5 plans for this machine")
    ]


@one_version
def test_plans_for_another_machine(bundle: Path, plans: Path, tensorrt: Any) -> None:
    here = here_of(tensorrt, compute_capability="11.0", tensorrt="10.16.2.10", gpu="Thor")
    assert list(check_plans(bundle, here)) == [
        Check(
            "plans of tiny",
            "warn",
            f"{plans.name}: for another machine: TensorRT: required 10.16.2.10, found "
            f"{tensorrt.__version__}; compute capability: required 11.0, found 8.7; "
            "GPU: required Thor, found Orin",
            f"hermes-edge build {bundle}",
        )
    ]


@one_version
def test_another_machines_plans_beside_those_of_this_one(
    bundle: Path, plans: Path, tensorrt: Any
) -> None:
    foreign = shutil.copytree(plans, plans.with_name("sm89-trt10.9.0-linux-x86_64"))
    edit(foreign, place={"tensorrt": "10.9.0", "compute_capability": "8.9"})
    checks = {check.found.split(":")[0]: check for check in here_checks(bundle, tensorrt)}
    assert checks[plans.name].status == "pass"
    assert (checks[foreign.name].status, checks[foreign.name].fix) == ("pass", None)
    assert "compute capability: required 8.7, found 8.9" in checks[foreign.name].found


@one_version
def test_a_folder_whose_record_is_of_another_place(
    bundle: Path, plans: Path, tensorrt: Any
) -> None:
    """The name fits, and what is inside was built elsewhere."""
    edit(plans, place={"gpu": "Orin Nano"})
    (check,) = here_checks(bundle, tensorrt)
    assert (check.status, check.fix) == ("fail", f"hermes-edge build {bundle}")
    assert check.found == f"{plans.name}: GPU: required Orin, found Orin Nano"
    plans.rename(plans.with_name("renamed"))
    edit(plans.with_name("renamed"), place={"gpu": "Orin"})
    (check,) = here_checks(bundle, tensorrt)
    assert check.status == "warn"
    assert check.found.endswith(f"folder: required {plans.name}, found renamed")


@one_version
def test_plans_that_are_damaged_or_of_other_graphs(
    bundle: Path, plans: Path, tensorrt: Any
) -> None:
    whole = (plans / "score.plan").read_bytes()
    (plans / "score.plan").write_bytes(whole[:-1])
    (plans / "vision.plan").unlink()
    edit(plans, plan=("compact", {"onnx_sha256": "0" * 64}))
    (check,) = here_checks(bundle, tensorrt)
    assert (check.status, check.fix) == ("fail", f"hermes-edge build {bundle}")
    assert f"score.plan: required {len(whole)} bytes, found {len(whole) - 1}" in check.found
    assert "vision.plan: required " in check.found
    assert f"found {'0' * 64}" in check.found


@one_version
def test_a_graph_without_a_plan(bundle: Path, plans: Path, tensorrt: Any) -> None:
    document = json.loads((plans / "build.json").read_text())
    del document["plans"]["decoder"]
    (plans / "build.json").write_text(json.dumps(document))
    (check,) = here_checks(bundle, tensorrt)
    assert (check.status, check.found) == (
        "fail",
        f"{plans.name}: decoder: required a plan, found none",
    )


@one_version
def test_records_that_cannot_be_read(bundle: Path, plans: Path, tensorrt: Any) -> None:
    (plans / "build.json").write_text("{")
    (check,) = here_checks(bundle, tensorrt)
    assert (check.status, check.fix) == ("fail", f"hermes-edge build {bundle}")
    foreign = plans.rename(plans.with_name("sm89-trt10.9.0-linux-x86_64"))
    (check,) = here_checks(bundle, tensorrt)
    assert (check.status, check.fix) == ("warn", f"rm -r {foreign}")
    assert "build.json is damaged" in check.found


@one_version
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "found list"),
        (b"\xff{}", "found 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[" * 100_000, "found maximum recursion depth exceeded"),
        (
            b'{"schema_version": 2}',
            "found schema_version: Input should be 1; place: Field required",
        ),
    ],
)
def test_records_of_machines_that_cannot_tell_their_key(
    bundle: Path, plans: Path, content: bytes, found: str
) -> None:
    (plans / "build.json").write_bytes(content)
    here = Here({"system": this_system(), "compute_capability": "8.7"}, "TensorRT", "pip")
    (check,) = check_plans(bundle, here)
    assert (check.status, check.fix) == ("fail", f"hermes-edge build {bundle}")
    begins = f"{plans / 'build.json'} is damaged: required what hermes-edge build writes, {found}"
    assert check.found.startswith(begins)
    assert "pydantic" not in check.found
    for facts in ({"system": "linux-other"}, {**here.facts, "compute_capability": "8.9"}):
        (check,) = check_plans(bundle, Here(facts, "TensorRT", "pip"))
        assert (check.status, check.fix) == ("warn", f"rm -r {plans}")


@one_version
def test_a_file_where_the_folders_of_plans_should_be(bundle: Path, tensorrt: Any) -> None:
    engines = bundle / "engines"
    engines.write_text("")
    found = f"{engines}: required a folder of plans, found a file"
    assert here_checks(bundle, tensorrt) == [Check("plans of tiny", "fail", found, f"rm {engines}")]
    (check,) = check_plans(bundle, Here({}, "TensorRT", "pip"))
    assert (check.status, check.found) == ("warn", found)


@pytest.mark.parametrize(
    ("facts", "status", "found"),
    [
        (
            {},
            "warn",
            "no GPU here; ONNX Runtime cannot compute in bf16 on the CPU: required a GPU of "
            "compute capability 8.0 or newer",
        ),
        (
            {"gpu": "T4", "compute_capability": "7.5"},
            "fail",
            "T4 cannot compute in bf16: required compute capability 8.0 or newer, found 7.5",
        ),
        (
            {"gpu": "Orin", "compute_capability": "8.7"},
            "pass",
            "Orin, compute capability 8.7; not on the CPU",
        ),
    ],
)
def test_what_bf16_needs(bundle: Path, facts: dict[str, str], status: str, found: str) -> None:
    manifest = bundle / "manifest.json"
    text = manifest.read_text().replace('"float32"', '"bfloat16"').replace('"fp32"', '"bf16"')
    manifest.unlink()
    # Scores, logits and weights of a fold are fp32 in every precision.
    document = json.loads(text)
    for graph in document["graphs"].values():
        for tensor in (*graph["inputs"], *graph["outputs"]):
            if tensor["name"] in ("logits", "scores", "fold_weight"):
                tensor["dtype"] = "float32"
    manifest.write_text(json.dumps(document))
    (check,) = check_plans(bundle, Here(facts, "TensorRT", "pip"))
    fix = None if status == "pass" else "hermes-edge export CHECKPOINT -o BUNDLE --dtype fp16"
    assert (check.name, check.status, check.found, check.fix) == (
        "bf16 of tiny",
        status,
        found,
        fix,
    )


@one_version
def test_what_a_killed_build_leaves(bundle: Path, plans: Path, tensorrt: Any) -> None:
    left = plans.rename(plans.with_name(f"{plans.name}.part"))
    (check,) = here_checks(bundle, tensorrt)
    assert (check.status, check.fix) == ("warn", f"rm -r {left}")


@one_version
def test_no_plans(bundle: Path, tensorrt: Any) -> None:
    key = f"sm87-trt{tensorrt.__version__}-{this_system()}"
    assert here_checks(bundle, tensorrt) == [
        Check(
            "plans of tiny", "warn", f"none for this machine, {key}", f"hermes-edge build {bundle}"
        )
    ]
    assert not list(check_plans(bundle, Here({"system": this_system()}, "TensorRT", "pip")))


@one_version
def test_a_machine_that_can_run_no_plan(bundle: Path, plans: Path) -> None:
    for facts, found in (
        ({}, "5 plans, and no TensorRT here"),
        (
            {"compute_capability": "8.9"},
            "for another machine: compute capability: required 8.9, found 8.7",
        ),
    ):
        (check,) = check_plans(bundle, Here(facts, "TensorRT", "pip install tensorrt"))
        assert check == Check(
            "plans of tiny", "warn", f"{plans.name}: {found}", "pip install tensorrt"
        )


@one_version
def test_plans_of_this_gpu_without_tensorrt(bundle: Path, plans: Path) -> None:
    facts = {"compute_capability": "8.7", "gpu": "Orin", "system": this_system()}
    (check,) = check_plans(bundle, Here(facts, "TensorRT", "pip install tensorrt"))
    assert check == Check(
        "plans of tiny",
        "fail",
        f"{plans.name}: 5 plans, and no TensorRT here",
        "pip install tensorrt",
    )


@one_version
def test_a_bundle_that_is_none(tmp_path: Path, tensorrt: Any) -> None:
    (check,) = check_plans(tmp_path / "gone", here_of(tensorrt))
    assert (check.name, check.status) == ("bundle gone", "fail")
    assert check.found == (
        f"{tmp_path / 'gone'} is not a bundle: required a folder with manifest.json, found no such "
        "folder"
    )
    assert check.fix == "Make one with: hermes-edge export CHECKPOINT -o BUNDLE"


@one_version
def test_the_verb_shows_plans_in_lines_and_json(
    bundle: Path, plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "engines").mkdir()
    bundle.rename(tmp_path / "engines/tiny")
    (tmp_path / "engines/tiny/engines" / plans.name / "build.json").write_text("{")
    for options in ([], ["--bundle", "engines/tiny"]):
        result = CliRunner().invoke(app, ["doctor", "--json", *options])
        (check,) = (
            check
            for check in json.loads(result.stdout)["checks"]
            if check["name"] == "plans of tiny"
        )
        # No TensorRT here to tell this machine's folder: it may be this one.
        assert (check["status"], check["fix"]) == ("fail", "hermes-edge build engines/tiny")
        assert (result.exit_code, json.loads(result.stdout)["healthy"]) == (1, False)
    lines = CliRunner().invoke(app, ["doctor"]).stdout
    assert "mend with: hermes-edge build engines/tiny" in lines.replace("\n", "")


def test_bundles_are_those_given_or_of_the_settings_and_of_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundles(None) == []
    for name in ("a", "b", "no-bundle"):
        (tmp_path / "engines" / name).mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "engines" / name / "manifest.json").touch()
    assert find_bundles(None) == [Path("engines/a"), Path("engines/b")]
    monkeypatch.setenv("HERMES_EDGE_BUNDLE", "engines/b")
    assert find_bundles(None) == [Path("engines/b"), Path("engines/a")]
    assert find_bundles([Path("c")]) == [Path("c")]
    monkeypatch.setenv("HERMES_EDGE_BUNDEL", "x")
    with pytest.raises(SettingsError):
        find_bundles(None)


def machine(root: Path, smi: str | None) -> Machine:
    def run(command: Sequence[str]) -> str | None:
        return smi if command[0] == "nvidia-smi" else None

    return Machine(root, run)


def test_what_is_known_of_this_machine(
    tmp_path: Path, cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = look_here(machine(tmp_path, None))
    assert (without.facts, without.missing) == ({"system": this_system()}, "TensorRT")
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    desktop = look_here(machine(tmp_path, "RTX 4090, 8.9, 24564 MiB\nRTX 3060, 8.6, 12288 MiB\n"))
    assert (desktop.missing, desktop.fix) == ("TensorRT", "pip install tensorrt")
    assert desktop.facts["compute_capability"] == "8.9"

    # Bindings of TensorRT that can be imported.
    (tmp_path / "bindings").mkdir()
    (tmp_path / "bindings/tensorrt.py").write_text("__version__ = '10.16.1.11'\n")
    monkeypatch.syspath_prepend(tmp_path / "bindings")
    desktop = look_here(machine(tmp_path, "RTX 4090, 8.9, 24564 MiB\n"))
    assert (desktop.missing, desktop.facts["tensorrt"]) == (None, "10.16.1.11")
    # A Jetson's nvidia-smi does not know, so CUDA is asked.
    jetson = look_here(
        machine(tmp_path, "Orin (nvgpu), [N/A], [N/A]\n"), lambda: CudaDevice(0, cuda)
    )
    assert (jetson.missing, jetson.facts["gpu"]) == (None, "Orin")
    assert jetson.facts["compute_capability"] == "8.7"

    def no_gpu() -> CudaDevice:
        raise EngineError("there is no usable GPU")

    dead = look_here(machine(tmp_path, None), no_gpu)
    assert (dead.missing, dead.fix) == ("usable GPU", "nvidia-smi (it says why)")
    del sys.modules["tensorrt"]


def here_checks(bundle: Path, tensorrt: Any) -> list[Check]:
    return list(check_plans(bundle, here_of(tensorrt)))


def edit(
    folder: Path,
    *,
    place: dict[str, str] | None = None,
    plan: tuple[str, dict[str, str]] | None = None,
) -> None:
    document = json.loads((folder / "build.json").read_text())
    document["place"] |= place or {}
    if plan is not None:
        document["plans"][plan[0]] |= plan[1]
    (folder / "build.json").write_text(json.dumps(document))
