"""TensorRT's published Python bindings, imported over libraries that hand out nothing.

So names, numbers of arguments and the errors of a machine without a GPU are the real ones; nothing
is built or run. One version is installed with the ``dev`` extra, as ``tensorrt_bindings``: it never
makes ``tensorrt`` importable. The others are tested where their wheels lie in a folder::

    for wheel in cu12-bindings==10.3.0 cu12-bindings==10.7.0 cu12-bindings==10.13.3.9 \\
            cu13-bindings==10.16.1.11; do pip download --no-deps -d wheels tensorrt-$wheel; done
    TENSORRT_WHEELS=wheels pytest tests/engines/test_real_bindings.py
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hermes_edge.shipped import TINY_BUNDLE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = HERE / "tensorrt-names"
VERSIONS = sorted(path.stem for path in NAMES.glob("*.json"))
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")

# Every method that is called, with the number of its arguments.
CALLS = {
    "Builder.build_serialized_network": 2,
    "Builder.create_builder_config": 0,
    "Builder.create_network": 1,
    "Builder.create_optimization_profile": 0,
    "IBuilderConfig.add_optimization_profile": 1,
    "IBuilderConfig.clear_flag": 1,
    "IBuilderConfig.create_timing_cache": 1,
    "IBuilderConfig.get_timing_cache": 0,
    "IBuilderConfig.set_memory_pool_limit": 2,
    "IBuilderConfig.set_timing_cache": 2,
    "ICudaEngine.create_execution_context": 0,
    "ICudaEngine.get_tensor_dtype": 1,
    "ICudaEngine.get_tensor_name": 1,
    "ICudaEngine.get_tensor_shape": 1,
    "IExecutionContext.execute_async_v3": 1,
    "IExecutionContext.infer_shapes": 0,
    "IExecutionContext.set_input_shape": 2,
    "IExecutionContext.set_optimization_profile_async": 2,
    "IExecutionContext.set_tensor_address": 2,
    "IOptimizationProfile.set_shape": 4,
    "ITimingCache.serialize": 0,
    "OnnxParser.get_error": 1,
    "OnnxParser.parse_from_file": 1,
    "ParserError.desc": 0,
    "ParserError.node_name": 0,
    "ParserError.node_operator": 0,
    "Runtime.deserialize_cuda_engine": 1,
}

# What the real module is asked: a list of classes with their members, signatures of the calls.
DESCRIBE = """
import json, sys, tensorrt
classes, calls = json.loads(sys.stdin.read())
members = {
    name: sorted(member for member in dir(getattr(tensorrt, name)) if member[:2] != "__")
    for name in classes
}
documents = {}
for call in calls:
    kind, method = call.split(".")
    documents[call] = getattr(getattr(tensorrt, kind), method).__doc__
print(json.dumps([tensorrt.__version__, members, documents]))
"""

# Our own code on the real module: logger, progress monitor, builder and runtime.
WITHOUT_GPU = """
from pathlib import Path
from hermes_edge.contract import GraphSpec
from hermes_edge.engines.trt.api import import_tensorrt, make_logger
from hermes_edge.engines.trt.builder import BuildOptions, build_plan, make_monitor
from hermes_edge.engines.trt.engine import TensorRTEngine
from hermes_edge.errors import EngineError

class Progress:
    def phase_started(self, phase, steps): print("started", phase, steps)
    def step_done(self, phase, step): print("step", phase, step)
    def phase_finished(self, phase): print("finished", phase)

trt = import_tensorrt()
heard = []
logger = make_logger(trt, heard)
for level in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
    logger.log(getattr(trt.ILogger, level), level)
print("heard", *heard)
monitor = make_monitor(trt, Progress(), [])
monitor.phase_start("Building", None, 2)
print("goes on", monitor.step_complete("Building", 0))
monitor.phase_finish("Building")
for call in (
    lambda: build_plan(trt, Path("score.onnx"), [], BuildOptions(), b"", Progress()),
    lambda: TensorRTEngine(trt, b"", GraphSpec("score", (), ()), [], None),
):
    try:
        call()
    except EngineError as error:
        print(error)
"""


@dataclass(frozen=True)
class RealBindings:
    """One version, importable as ``tensorrt`` in processes of this environment."""

    version: str
    environment: dict[str, str]

    def python(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )


def wheel_of(version: str) -> Path | None:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    folder = Path(os.environ.get("TENSORRT_WHEELS", "no-such-folder"))
    return next(iter(sorted(folder.glob(f"tensorrt_cu*_bindings-{version}-{tag}-*.whl"))), None)


def installed_bindings() -> str | None:
    """The version in the ``dev`` extra, read without an import, which needs the libraries."""
    spec = find_spec("tensorrt_bindings")
    if spec is None or spec.origin is None:
        return None
    found = re.search(r'^__version__ = "(.+)"', Path(spec.origin).read_text(), re.M)
    return found[1] if found else None


def compile_libraries(folder: Path, major: str) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to make the libraries that hand out nothing")
    for name in LIBRARIES:
        soname = f"lib{name}.so.{major}"
        options = ["-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(folder / soname)]
        subprocess.run([compiler, *options, str(HERE / "no_tensorrt.c")], check=True)


AT_HAND = [name for name in VERSIONS if wheel_of(name) or name == installed_bindings()]


@pytest.fixture(scope="module", params=AT_HAND or ["none"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealBindings]:
    version = str(request.param)
    if version not in AT_HAND:
        pytest.skip("no TensorRT bindings at hand: pip install 'hermes-edge[dev]'")
    folder = tmp_path_factory.mktemp("tensorrt")
    wheel = wheel_of(version)
    if wheel is not None:
        zipfile.ZipFile(wheel).extractall(folder)
    compile_libraries(folder, version.split(".")[0])
    (folder / "tensorrt.py").write_text(
        "import sys, tensorrt_bindings\nsys.modules['tensorrt'] = tensorrt_bindings\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "LD_LIBRARY_PATH": str(folder),
        # Whatever the machine has.
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "400",
    }
    yield RealBindings(version, environment)


def names_of(version: str) -> dict[str, list[str]]:
    names: dict[str, list[str]] = json.loads((NAMES / f"{version}.json").read_text())
    return names


def test_names_and_arguments_are_those_of_the_real_module(real: RealBindings) -> None:
    """What the stand-ins may touch is exactly what there is."""
    names = names_of(real.version)
    done = real.python("-c", DESCRIBE, text=json.dumps([list(names), list(CALLS)]))
    assert done.returncode == 0, done.stderr
    version, members, documents = json.loads(done.stdout)
    assert version == real.version
    assert members == {kind: sorted(listed) for kind, listed in names.items()}
    for call, count in CALLS.items():
        method = call.split(".")[1]
        signatures = re.findall(
            rf"^(?:\d\. )?{method}\(self: [^,)]+(.*)\) ->", documents[call], re.M
        )
        assert any(takes(signature, count) for signature in signatures), documents[call]


def takes(signature: str, count: int) -> bool:
    """Whether ``, a: A, b: B = ...`` may be called with so many arguments."""
    arguments = re.findall(r", \w+: [^=,]+(=?)", signature)
    return arguments.count("") <= count <= len(arguments)


def test_our_code_on_the_real_module_says_that_there_is_no_gpu(real: RealBindings) -> None:
    done = real.python("-c", WITHOUT_GPU)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "heard INTERNAL_ERROR ERROR WARNING",
        "started Building 2",
        "step Building 0",
        "goes on True",
        "finished Building",
        *(
            f"TensorRT cannot make a {what}: there is no usable GPU: found no reason given. "
            "See what is wrong with: hermes-edge doctor"
            for what in ("builder", "runtime")
        ),
    ]


NO_GPU = (
    r"there is no usable GPU: required an NVIDIA driver that is as new as CUDA's bindings, found "
    r"cudaError\w+\. See what is wrong with: nvidia-smi, or hermes-edge doctor\n"
)


def test_the_verb_says_that_there_is_no_gpu(real: RealBindings) -> None:
    main = "from hermes_edge.cli import main; main()"
    done = real.python("-c", main, "build", str(TINY_BUNDLE), "--budget", "1000")
    assert (done.returncode, done.stdout) == (6, "")
    assert re.fullmatch(f"error: {NO_GPU}", done.stderr), done.stderr


def test_loading_says_that_there_is_no_gpu(real: RealBindings) -> None:
    code = (
        "from hermes_edge.errors import EngineError\n"
        "from hermes_edge.runtime import Runtime\n"
        f"try:\n    Runtime.load({str(TINY_BUNDLE)!r}, device='cuda:0', backend='tensorrt')\n"
        "except EngineError as error:\n    print(error)\n"
    )
    done = real.python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(NO_GPU, done.stdout), done.stdout


def test_the_doctor_names_the_version(real: RealBindings) -> None:
    code = "from hermes_edge.cli.hardware import check_tensorrt; print(check_tensorrt(False).found)"
    done = real.python("-c", code)
    assert (done.stdout, done.stderr) == (f"{real.version}\n", "")


def test_bindings_without_libraries_are_a_missing_package(
    real: RealBindings, tmp_path: Path
) -> None:
    """As pip leaves them where NVIDIA's libraries are not installed."""
    bare = RealBindings(real.version, {**real.environment, "LD_LIBRARY_PATH": str(tmp_path)})
    main = "from hermes_edge.cli import main; main()"
    done = bare.python("-c", main, "build", str(TINY_BUNDLE), "--budget", "1000")
    assert (done.returncode, done.stdout) == (11, "")
    assert re.match(
        r"error: TensorRT cannot be imported: required TensorRT 10\.3 or newer with its Python "
        r"bindings, found lib\w+\.so\.\d+: cannot open shared object file: ",
        done.stderr,
    ), done.stderr
    assert "Traceback" not in done.stderr


def chains(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Attribute chains on the module: ``trt.A.b`` as ``("A", "b")``."""
    for node in ast.walk(tree):
        parts: list[str] = []
        inner: Any = node
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id in ("trt", "tensorrt"):
            yield tuple(parts)


def test_every_name_of_the_module_is_in_every_list() -> None:
    """Members of objects are held to the lists by the stand-ins, which touch no others."""
    sources = sorted((ROOT / "hermes_edge").rglob("*.py"))
    used = {chain for path in sources for chain in chains(ast.parse(path.read_text()))}
    used -= {("__version__",)} | {c for c in used if c[0] == "__version__"}
    assert ("BuilderFlag", "TF32") in used and ("Runtime",) in used
    for version in VERSIONS:
        names = names_of(version)
        for kind, *members in used:
            assert kind in names, f"TensorRT {version} has no {kind}"
            for member in members[:1]:
                assert member in names[kind], f"{kind} of TensorRT {version} has no {member}"


def test_every_call_is_among_those_whose_arguments_are_compared() -> None:
    methods = {call.split(".")[1]: count for call, count in CALLS.items()}
    members = {member for listed in names_of(VERSIONS[0]).values() for member in listed}
    seen = set()
    for file in ("builder.py", "engine.py"):
        tree = ast.parse((ROOT / "hermes_edge/engines/trt" / file).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = node.func.attr
                if name in members:
                    assert len(node.args) == methods[name], f"{file}: {name}"
                    seen.add(name)
    assert seen == set(methods)
