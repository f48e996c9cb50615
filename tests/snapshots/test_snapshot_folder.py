"""A folder of snapshots: names, what is pruned and what never is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.snapshots import SnapshotFolder
from hermes_edge.snapshots.file import write_snapshot
from hermes_edge.snapshots.folder import fault_of, newest_first, only_stream
from tests.snapshots.conftest import tiny_tensors

if TYPE_CHECKING:
    from tests.snapshots.conftest import Write

NOON = datetime(2026, 11, 25, 12, 0, 0, 123_000, tzinfo=timezone.utc)


def name(second: int, stream: str = "door") -> str:
    return f"{stream}-20261125T1200{second:02d}.123Z.safetensors"


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> Path:
    """Five snapshots of a stream, one of another, and what is none."""
    for second in range(5):
        write(tmp_path / name(second), frames=second)
    write(tmp_path / name(9, "gate-20261125T120009.123Z"))
    for other in ("notes.txt", "door-20261325T120000.123Z.safetensors", ".hermes-edge-x.part.txt"):
        (tmp_path / other).write_text("none")
    return tmp_path


def names(folder: Path) -> list[str]:
    return [path.name for path in newest_first(folder, "door")]


def test_names_are_times_and_sort_by_them(folder: Path) -> None:
    assert names(folder) == [name(second) for second in (4, 3, 2, 1, 0)]
    assert next(path.name for path in newest_first(folder, None)) == name(
        9, "gate-20261125T120009.123Z"
    )
    assert SnapshotFolder(folder, "door").next_path(NOON + timedelta(seconds=50)).name == name(50)
    assert SnapshotFolder(folder / "new" / "deep", "door").next_path(NOON).name == name(0)
    assert (folder / "new" / "deep").is_dir()


def test_a_clock_that_went_back_makes_no_old_names(folder: Path) -> None:
    snapshots = SnapshotFolder(folder, "door")
    old = NOON - timedelta(days=20_000)
    first, second = (snapshots.next_path(old).name for _ in range(2))
    assert (first, second) == (
        "door-20261125T120004.124Z.safetensors",
        "door-20261125T120004.125Z.safetensors",
    )
    assert SnapshotFolder(folder, "other").next_path(old).name.startswith("other-1972")


def test_a_name_behind_which_there_is_none_is_no_name(folder: Path) -> None:
    last = folder / "door-99991231T235959.999Z.safetensors"
    last.touch()
    assert SnapshotFolder(folder, "door").next_path(NOON + timedelta(hours=1)).name == (
        "door-20261125T130000.123Z.safetensors"
    )
    assert SnapshotFolder(folder, "door").prune(1)
    assert last.exists()


def test_behind_the_last_of_all_times_there_is_no_name(
    folder: Path, raises: Callable[..., Any]
) -> None:
    last = folder / "door-99981231T235959.999Z.safetensors"
    last.touch()
    with raises(
        StorageError,
        f"no name for a snapshot in {folder} would be later than all that are there: required "
        f"times before 9999-01-01, found {last.name}. Delete that file, or set the clock",
    ):
        SnapshotFolder(folder, "door").next_path(NOON)


def test_a_clock_at_the_end_of_all_times_is_told_of(
    tmp_path: Path, raises: Callable[..., Any]
) -> None:
    with raises(
        StorageError,
        f"no name for a snapshot in {tmp_path} would be later than all that are there: required "
        "times before 9999-01-01, found 9999-11-25 12:00:00.123000+00:00. Delete that file, or set "
        "the clock",
    ):
        SnapshotFolder(tmp_path, "door").next_path(NOON.replace(year=9999))


def test_snapshots_of_each_bundle_are_counted_by_themselves(folder: Path, write: Write) -> None:
    """Those of another one cannot be restored with this: they must not push it out."""
    for second in (3, 4):
        record = write(folder / name(second))
        other = record.model_copy(update={"bundle": "1" * 64})
        write_snapshot(folder / name(second), other, tiny_tensors(other))
    os.truncate(folder / name(1), 100)
    gone = SnapshotFolder(folder, "door").prune(1)
    assert [path.name for path in gone] == [name(3), name(1), name(0)]
    assert names(folder) == [name(4), name(2)]


def test_what_is_named_after_another_stream_is_not_counted(folder: Path, write: Write) -> None:
    record = write(folder / name(4)).model_copy(update={"stream": "yard"})
    write_snapshot(folder / name(4), record, tiny_tensors(record))
    SnapshotFolder(folder, "door").prune(1)
    assert names(folder) == [name(4), name(3)]


def test_folders_are_not_pruned_and_stop_no_pruning(folder: Path) -> None:
    (folder / name(2)).unlink()
    (folder / name(2)).mkdir()
    gone = SnapshotFolder(folder, "door").prune(2)
    assert [path.name for path in gone] == [name(1), name(0)]
    assert names(folder) == [name(4), name(3), name(2)]


def test_the_newest_stay(folder: Path) -> None:
    gone = SnapshotFolder(folder, "door").prune(2)
    assert [path.name for path in gone] == [name(second) for second in (2, 1, 0)]
    assert names(folder) == [name(4), name(3)]
    assert SnapshotFolder(folder, "door").prune(2) == []
    # Neither another stream's nor what only looks like a snapshot.
    assert len([*folder.iterdir()]) == 2 + 4


def test_bad_ones_are_not_counted_and_the_last_good_one_stays(folder: Path) -> None:
    for second in (4, 3, 1, 0):
        os.truncate(folder / name(second), 100 * second)
    assert SnapshotFolder(folder, "door").prune(2) == []
    gone = SnapshotFolder(folder, "door").prune(1)
    assert [path.name for path in gone] == [name(1), name(0)]
    assert names(folder) == [name(4), name(3), name(2)]
    assert fault_of(folder / name(2)) is None


def test_of_files_known_to_be_good_the_header_alone_is_read(folder: Path) -> None:
    content = bytearray((folder / name(4)).read_bytes())
    content[-1] ^= 1
    (folder / name(4)).write_bytes(content)
    assert fault_of(folder / name(4)) is not None
    SnapshotFolder(folder, "door").prune(1, {folder / name(4)})
    assert names(folder) == [name(4)]


def test_the_only_stream(folder: Path, raises: Callable[..., Any], tmp_path: Path) -> None:
    text = (
        f"{folder} holds several streams: required the name of one, found door, "
        "gate-20261125T120009.123Z"
    )
    with raises(SettingsError, text):
        only_stream(folder)
    (folder / name(9, "gate-20261125T120009.123Z")).unlink()
    assert only_stream(folder) == "door"
    (tmp_path / "empty").mkdir()
    assert only_stream(tmp_path / "empty") is None


@pytest.mark.parametrize("bad", ["", "a/b", "..", "-x", ".x", "a b", "tür", "x" * 101, "a\n"])
def test_names_that_files_cannot_have(tmp_path: Path, raises: Callable[..., Any], bad: str) -> None:
    text = (
        "the stream's name cannot be used in a file name: required 1 to 100 of A-Z a-z 0-9 _ - . "
        f"(neither - nor . in front), found {bad!a}"
    )
    with raises(SettingsError, text):
        SnapshotFolder(tmp_path, bad)


def test_folders_that_cannot_be(tmp_path: Path, raises: Callable[..., Any]) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file"
    with raises(StorageError, f"cannot make {path}: found File exists"):
        SnapshotFolder(path, "door")
    with raises(StorageError, f"cannot make {path / 'in'}: found Not a directory"):
        SnapshotFolder(path / "in", "door")
    with raises(StorageError, f"cannot read {tmp_path / 'none'}: found No such file or directory"):
        newest_first(tmp_path / "none", "door")


POWERLESS = """
import os, sys
from hermes_edge.errors import StorageError
from hermes_edge.snapshots import Saver
if os.geteuid() == 0:
    # Permissions do not bind root.
    os.setuid(65534)
class Session:
    def save(self): ...
try:
    Saver(Session(), sys.argv[1], every_s=1)
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", [0o555, 0o333])
def test_a_folder_without_permission_is_said_at_the_start(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "snapshots"
    folder.mkdir(mode=0o777)
    # Pytest's own folders are closed to others.
    for parent in (tmp_path, *tmp_path.parents):
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o755)
    folder.chmod(mode)
    done = subprocess.run(
        [sys.executable, "-c", POWERLESS, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        f"cannot write in {folder}: required a folder that can be read and written, found no "
        "permission, or a file system that is read-only. Choose another folder, or give this one "
        "to the user that runs hermes-edge"
    )
