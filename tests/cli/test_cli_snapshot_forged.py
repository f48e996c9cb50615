"""``hermes-edge snapshot`` and files that no stream has left, or that lie under a wrong name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.cli.output import table
from hermes_edge.engines.views import CpuDevice
from hermes_edge.runtime import Runtime, SamplingParams
from hermes_edge.snapshots import Conversation, SnapshotFile
from tests.snapshots.forging import forge, write_sparse

Cli = Callable[..., tuple[int, str, str]]


def name(second: int, stream: str = "door") -> str:
    return f"{stream}-20261125T1305{second:02d}.000Z.safetensors"


@pytest.fixture(scope="module")
def saved(random_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runtime = Runtime.load(random_bundle, threads=1, check_hashes=False)
    session = runtime.session(budget_tokens=64, chunk_frames=4, reserve_tokens=256)
    for index in range(10):
        session.feed(np.full((20, 30, 3), 10 * index, dtype=np.uint8), 1.5 * index)
    session.ask("What is it?", SamplingParams(max_new_tokens=2))
    return session.save(tmp_path_factory.mktemp("saved") / name(0), stream="door").path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """One snapshot that is good."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name(0)).hardlink_to(saved)
    return tmp_path / "folder"


def test_a_file_that_promises_more_than_there_is(
    cli: Cli, folder: Path, random_bundle: Path
) -> None:
    path = folder / name(1)
    with SnapshotFile(folder / name(0)) as file:
        record = file.record
    write_sparse(path, record.model_copy(update={"rows": (1 << 24, *record.rows[1:])}))
    with SnapshotFile(path) as file:
        assert file.nbytes > 1 << 32
    fault = f"{path} is damaged: required sha256 {'0' * 64} of layers.0.position, found "
    code, _, err = cli("snapshot", "list", folder)
    assert (code, fault in err) == (0, True)
    code, out, err = cli("snapshot", "show", path)
    assert (code, out, fault in err) == (12, "", True)
    code, out, _ = cli("snapshot", "verify", folder)
    assert (code, f"{path.name}: {fault}" in out, f"{name(0)}: good\n" in out) == (12, True, True)
    code, out, _ = cli("snapshot", "verify", folder, "--bundle", random_bundle, "--threads", 1)
    assert (code, "layer 0: 16777216 rows instead of 21 to " in out) == (12, True)
    assert cli("snapshot", "prune", folder, "--keep", 1) == (0, "0 deleted\n", "")


def test_a_position_that_no_stream_reaches(cli: Cli, folder: Path, random_bundle: Path) -> None:
    path = forge(folder / name(1), folder / name(0), "layers.3.position", (1 << 63) - 1)
    code, out, err = cli("snapshot", "verify", folder, "--bundle", random_bundle, "--threads", 1)
    assert (code, err) == (12, "error: 1 of 2 snapshots cannot be restored\n")
    first, second = out.splitlines()
    assert first.startswith(f"{path.name}: {path} cannot be restored: ")
    assert second == f"{name(0)}: good"


def test_ages_of_any_finite_times(cli: Cli, folder: Path, tmp_path: Path) -> None:
    path = forge(tmp_path / "forged", folder / name(0), newest_s=1e308)
    for flags in ([], ["--json"]):
        code, out, err = cli("snapshot", "show", path, *flags)
        assert (code, out) == (12, "")
        assert "newest_s: Input should be less than or equal to 1000000000000" in err
    forge(path, folder / name(0), newest_s=1e12)
    code, out, _ = cli("snapshot", "show", path, "--json")
    assert (code, json.loads(out)["bands"][0]["oldest_age_s"]) == (0, 1e12)


def test_what_was_said_imitates_no_other_line(cli: Cli, folder: Path, tmp_path: Path) -> None:
    forged: dict[str, Any] = {
        "conversation": Conversation(question="What?\nbundle   mine", answer="\x1b[2J\r\nsaved"),
        "model_id": "\x1b[31m\nstream   yard",
    }
    code, out, _ = cli("snapshot", "show", forge(tmp_path / "forged", folder / name(0), **forged))
    assert code == 0 and "\x1b" not in out
    lines = [line.partition(" ")[0] for line in out.splitlines() if line]
    facts = ["snapshot", "stream", "saved", "bundle", "policy", "memory", "seen"]
    assert lines[: len(facts) + 3] == [*facts, "asked", "answered", "bands"]


def test_a_table_stays_in_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    table("a\x1b[31m\ntitle", ("one", "two"), [("x\x1b[2J\ny", "z")])
    title, _, row = capsys.readouterr().out.strip().splitlines()
    assert title == "a[31m title"
    assert row.split() == ["x[2J", "y", "z"]


def test_a_file_that_has_the_name_of_another_stream(
    cli: Cli, folder: Path, random_bundle: Path
) -> None:
    (folder / name(1, "my-yard")).hardlink_to(folder / name(0))
    fault = (
        f"{folder / name(1, 'my-yard')} is of another stream: required my-yard, found door. "
        "Restore the file itself, not its folder, or give it its stream's name back"
    )
    code, out, err = cli("snapshot", "list", folder)
    assert (code, err) == (0, f"warning: {fault}\n")
    assert [line.split()[-1] for line in out.splitlines()[-2:]] == ["bad", "good"]
    entry = json.loads(cli("snapshot", "list", folder, "--json")[1])["snapshots"][0]
    assert (entry["good"], entry["fault"]) == (False, fault)
    for flags in ([], ["--bundle", random_bundle, "--threads", 1]):
        code, out, err = cli("snapshot", "verify", folder, *flags)
        assert (code, err) == (12, "error: 1 of 2 snapshots cannot be restored\n")
        assert out == f"{name(1, 'my-yard')}: {fault}\n{name(0)}: good\n"
    # By itself it is what it says.
    assert cli("snapshot", "verify", folder / name(1, "my-yard"))[0] == 0


def test_a_memory_that_does_not_fit_here(
    cli: Cli, folder: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are verified, and each line stands there before the next file is read."""
    with SnapshotFile(folder / name(0)) as file:
        options = file.record.options
    large = options.model_copy(update={"budget_tokens": 1024})
    forge(folder / name(2), folder / name(0), options=large)
    (folder / name(1)).hardlink_to(folder / name(0))
    runtime = Runtime.load(random_bundle, threads=1, check_hashes=False)
    memory = runtime.restore(folder / name(0)).memory()
    room = memory.slab_bytes + memory.spare_bytes
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: room)
    verify = ("snapshot", "verify", folder, "--bundle", random_bundle, "--threads", 1)
    code, out, err = cli(*verify)
    assert (code, err) == (7, "error: 1 of 3 snapshots cannot be restored\n")
    refused, *good = out.splitlines()
    assert refused.startswith(f"{name(2)}: the memory of door does not fit ")
    assert good == [f"{name(1)}: good", f"{name(0)}: good"]
    # A file that is bad counts for more.
    forge(folder / name(3), folder / name(0), "layers.3.position", 5000)
    code, out, err = cli(*verify)
    assert (code, err) == (12, "error: 2 of 4 snapshots cannot be restored\n")


def test_lines_that_are_known_when_a_verification_ends(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / name(1)).hardlink_to(folder / name(0))
    check = SnapshotFile.check

    def interrupted(file: SnapshotFile) -> None:
        if file.path == folder / name(0):
            raise KeyboardInterrupt
        check(file)

    monkeypatch.setattr(SnapshotFile, "check", interrupted)
    code, out, _ = cli("snapshot", "verify", folder)
    assert (code, out.splitlines()[0]) == (130, f"{name(1)}: good")


@pytest.mark.parametrize("flags", [["--device", "foo"], ["--threads", "2"]])
def test_a_device_without_a_bundle(cli: Cli, folder: Path, flags: list[Any]) -> None:
    text = "nothing is restored on a device: required --bundle beside --device or --threads"
    assert cli("snapshot", "verify", folder, *flags) == (2, "", f"error: {text}, found none\n")


def test_a_stream_that_is_not_there(cli: Cli, folder: Path) -> None:
    fault = f"error: {folder} holds no snapshot of the stream nosuch\n"
    listed = ("snapshot", "list", folder, "--stream", "nosuch")
    assert cli(*listed) == (12, "", fault)
    assert cli(*listed, "--json") == (12, '{"snapshots": []}\n', fault)
