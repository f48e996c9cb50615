"""What the image, the compose file and the unit say, without building: pins, paths, commands."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from hermes_edge.cli.app import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile.jetson").read_text(encoding="utf-8")
CONSTRAINTS = ROOT / "configs/container-constraints.txt"
UNIT = (ROOT / "runtime/hermes-edge.service").read_text(encoding="utf-8")

# JetPack 6 and 7.
BOARDS = [
    {
        "python_version": version,
        "python_full_version": f"{version}.3",
        "platform_machine": "aarch64",
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    for version in ("3.10", "3.12")
]
on_every_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["python_version"])


def pinned(board: dict[str, str]) -> list[Requirement]:
    """The lines of the constraints that count on a board."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    return [pin for pin in requirements if pin.marker is None or pin.marker.evaluate(board)]


def installed_in_image(board: dict[str, str]) -> Iterator[Requirement]:
    """The wheel's own requirements and those of the extras that Dockerfile.jetson installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r'"\$\{wheel\}\[([\w,]+)\]"', DOCKERFILE)
    for text in [
        *project["dependencies"],
        *(text for extra in extras.split(",") for text in project["optional-dependencies"][extra]),
    ]:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(board):
            yield requirement


def required_by(pin: Requirement, board: dict[str, str]) -> Iterator[str]:
    """Names that a pinned version requires, where just that version is installed here."""
    try:
        found = distribution(pin.name)
    except PackageNotFoundError:
        return
    if found.version in pin.specifier:
        for requirement in map(Requirement, found.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({**board, "extra": ""}):
                yield canonicalize_name(requirement.name)


@on_every_board
def test_requirement_of_the_image_has_a_pin_that_it_admits(board: dict[str, str]) -> None:
    pins = {pin.name: pin for pin in pinned(board)}
    for requirement in installed_in_image(board):
        ((operator, version),) = [(s.operator, s.version) for s in pins[requirement.name].specifier]
        assert operator == "=="
        assert version in requirement.specifier, requirement


@on_every_board
def test_pin_is_the_only_one_of_its_name_and_brings_nothing_without_a_pin(
    board: dict[str, str],
) -> None:
    pins = pinned(board)
    names = [pin.name for pin in pins]
    assert names == sorted({*names})
    assert {name for pin in pins for name in required_by(pin, board)} <= {*names}


@on_every_board
def test_cuda_is_that_of_the_board(board: dict[str, str]) -> None:
    (pin,) = [pin for pin in pinned(board) if pin.name == "cuda-bindings"]
    major = {"3.10": "12", "3.12": "13"}[board["python_version"]]
    assert str(pin.specifier).startswith(f"=={major}.")


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
        for source in line.split()[:-1]
    ]
    assert "hermes_edge" in copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in sent
    assert "*" in sent


def accepts(arguments: Sequence[str]) -> int:
    """Exit code of the command line, which stops at its help once all names are known."""
    return CliRunner().invoke(app, [*arguments, "--help"]).exit_code


def test_names_that_do_not_exist_are_seen() -> None:
    assert accepts(["run", "video.mp4", "--bundel=engines/a"]) == 2
    assert accepts(["rum", "video.mp4"]) == 2


def test_image_runs_commands_that_exist() -> None:
    arrays = re.findall(r"^(?:HEALTHCHECK .*)?\b(ENTRYPOINT|CMD) (\[.*\])$", DOCKERFILE, re.M)
    health, entry, default = [json.loads(array) for _, array in arrays]
    assert entry == ["hermes-edge"] == health[:1]
    assert accepts(health[1:]) == 0
    assert accepts(default) == 0


def test_compose_file_builds_this_image_and_runs_a_command_that_exists() -> None:
    file = ROOT / "runtime/compose.yaml"
    service = yaml.safe_load(file.read_text(encoding="utf-8"))["services"]["hermes-edge"]
    context = file.parent / service["build"]["context"]
    assert (context / service["build"]["dockerfile"]).samefile(ROOT / "Dockerfile.jetson")
    assert accepts(service["command"]) == 0
    targets = [
        volume.rsplit(":", 2 if volume.endswith(":ro") else 1)[1] for volume in service["volumes"]
    ]
    assert set(re.findall(r"^(?:VOLUME|WORKDIR) (/\w+)$", DOCKERFILE.split("FROM")[-1], re.M)) <= {
        *targets
    }


def test_unit_runs_a_command_that_exists() -> None:
    (line,) = re.findall(r"^ExecStart=(.+)$", UNIT, re.M)
    program, *arguments = shlex.split(line)
    assert f"venv --system-site-packages {Path(program).parents[1]}" in UNIT
    assert accepts(arguments) == 0
    # What the command takes from the environment is in the example at the head.
    for name in re.findall(r"\$\{(\w+)\}", line):
        assert re.search(rf"^#   {name}=", UNIT, re.M), name
