"""One writer for each stream of a folder: who is refused, and that nobody else is."""

from __future__ import annotations

import errno
import fcntl
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hermes_edge.errors import QuestionError, SettingsError, StorageError
from hermes_edge.snapshots import Saved, Saver, SnapshotFolder
from hermes_edge.snapshots.folder import newest_first

if TYPE_CHECKING:
    from tests.snapshots.conftest import Write

ROOT = Path(__file__).parents[2]

HOLD = """
import sys
from hermes_edge.snapshots import SnapshotFolder
folder = SnapshotFolder(sys.argv[1], "door")
folder.lock()
print("locked", flush=True)
sys.stdin.read()
"""

# Each round is lost that two make at once; the file is deleted whenever somebody unlocks.
COUNT = """
import sys
from pathlib import Path
from hermes_edge.errors import QuestionError, SettingsError
from hermes_edge.snapshots import SnapshotFolder
folder, count = SnapshotFolder(sys.argv[1], "door"), Path(sys.argv[2])
rounds = 0
while rounds < 200:
    try:
        folder.lock()
    except SettingsError:
        continue
    count.write_text(str(int(count.read_text()) + 1))
    folder.unlock()
    rounds += 1
"""

FULL = """
import errno, os, sys
from pathlib import Path
from hermes_edge.snapshots import SnapshotFolder
disk, fillers = Path(sys.argv[1]), []
try:
    while True:
        fillers.append(disk / f"filler-{len(fillers)}")
        fillers[-1].touch()
except OSError as error:
    assert error.errno == errno.ENOSPC
folder = SnapshotFolder(disk, "door")
folder.lock()
print([path.name for path in disk.glob(".*")])
fillers[0].unlink()
folder.lock()
print([path.name for path in disk.glob(".*")])
"""


def python(code: str, *args: object, **options: Any) -> subprocess.Popen[str]:
    """A process of its own."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


class Session:
    """Saves next to nothing."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def save(self, path: str | Path, *, stream: str) -> Saved:
        self._write(Path(path))
        return Saved(Path(path), 1000, 1.0, 2.0)


@pytest.fixture
def session(write: Write) -> Session:
    return Session(write)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has locked the stream "door"."""
    with python(HOLD, tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def refusal(folder: Path) -> str:
    return (
        f"another process saves the stream door in {folder}: required one at a time, found "
        ".hermes-edge-door.lock, which it has locked. Choose another folder, or name this stream "
        "otherwise: NAME=ADDRESS"
    )


def test_a_second_process_is_refused_until_the_first_is_killed(
    holder: subprocess.Popen[str], session: Session, tmp_path: Path, raises: Callable[..., Any]
) -> None:
    with raises(SettingsError, refusal(tmp_path)):
        Saver(session, tmp_path, every_s=60, stream="door")
    assert newest_first(tmp_path, None) == []
    for folder, stream in ((tmp_path, "yard"), (tmp_path / "other", "door")):
        with Saver(session, folder, every_s=60, stream=stream):
            pass
    holder.kill()
    holder.wait()
    assert (tmp_path / ".hermes-edge-door.lock").exists()
    with Saver(session, tmp_path, every_s=60, stream="door"):
        pass
    # Nothing but snapshots is left, and the folder of another.
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", *2 * [".safetensors"]]


def test_a_second_saver_of_one_process_is_refused(
    session: Session, tmp_path: Path, raises: Callable[..., Any]
) -> None:
    with Saver(session, tmp_path, every_s=60, stream="door"):
        with raises(SettingsError, refusal(tmp_path)):
            Saver(session, tmp_path, every_s=60, stream="door")
    with Saver(session, tmp_path, every_s=60, stream="door"):
        pass


def test_a_folder_that_is_locked_already(
    session: Session, tmp_path: Path, raises: Callable[..., Any]
) -> None:
    folder = SnapshotFolder(tmp_path, "door")
    folder.lock()
    with Saver(session, folder, every_s=60):
        with raises(SettingsError, refusal(tmp_path)):
            SnapshotFolder(tmp_path, "door").lock()
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == ["door"]


def test_the_lock_is_no_snapshot(
    holder: subprocess.Popen[str], write: Write, tmp_path: Path
) -> None:
    write(tmp_path / "door-20261125T120000.000Z.safetensors")
    write(tmp_path / "door-20261125T120001.000Z.safetensors")
    assert len(newest_first(tmp_path, None)) == 2
    # Nor is it in the way of who lists, thins out or cleans up.
    gone = SnapshotFolder(tmp_path, "door").prune(1)
    assert [path.name for path in gone] == ["door-20261125T120000.000Z.safetensors"]
    assert (tmp_path / ".hermes-edge-door.lock").exists()


def test_processes_that_come_and_go_never_write_together(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    processes = [python(COUNT, tmp_path, count) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert count.read_text() == "600"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_lock_that_was_deleted_is_taken_again_or_the_save_fails(
    session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".hermes-edge-door.lock"
    with Saver(session, tmp_path, every_s=0.01, stream="door") as saver:
        path.unlink()
        _until(path.exists)
        other = SnapshotFolder(tmp_path, "door")
        while True:
            path.unlink(missing_ok=True)
            try:
                other.lock()
                break
            except SettingsError:
                pass  # The saver was first.
        _until(lambda: saver.counts.failures >= 2)
        assert caplog.messages == [
            "door: the memory could not be saved; the stream goes on, older snapshots stay, and it "
            f"is tried every 0.01 s: {refusal(tmp_path)}"
        ]
        saves = saver.counts.saves
        other.unlock()
        _until(lambda: saver.counts.saves > saves)


def test_a_saver_that_another_thread_still_writes_for_keeps_its_lock(
    write: Write, tmp_path: Path, raises: Callable[..., Any]
) -> None:
    entered, free = threading.Event(), threading.Event()

    class Busy(Session):
        def save(self, path: str | Path, *, stream: str) -> Saved:
            if threading.current_thread().name != "hermes-edge-saver":
                raise QuestionError("the session is busy with a streamed answer")
            entered.set()
            free.wait(60)
            return super().save(path, stream=stream)

    saver = Saver(Busy(write), tmp_path, every_s=0.01, stream="door")
    assert entered.wait(60)
    saver.close()
    with raises(SettingsError, refusal(tmp_path)):
        SnapshotFolder(tmp_path, "door").lock()
    free.set()
    _until(lambda: not (tmp_path / ".hermes-edge-door.lock").exists())


def test_a_file_system_without_locks_is_refused(
    session: Session, tmp_path: Path, raises: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    text = (
        f"{tmp_path} cannot be locked against other processes: required a file system with flock, "
        "found No locks available. Choose a folder on another one"
    )
    with raises(StorageError, text):
        Saver(session, tmp_path, every_s=60)


def test_a_lock_that_cannot_be_opened(
    session: Session, tmp_path: Path, raises: Callable[..., Any]
) -> None:
    (tmp_path / ".hermes-edge-stream.lock").mkdir()
    text = f"cannot write {tmp_path / '.hermes-edge-stream.lock'}: found Is a directory"
    with raises(StorageError, text):
        Saver(session, tmp_path, every_s=60)


def test_a_full_disk_ends_no_start_and_is_locked_when_there_is_room(tmp_path: Path) -> None:
    disk = shlex.quote(str(tmp_path))
    mount = f"mount -t tmpfs -o nr_inodes=8 tmpfs {disk}"
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    tried = subprocess.run([*inside, mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.strip()}")
    command = f"{mount} && exec {shlex.join([sys.executable, '-c', FULL])} {disk}"
    done = subprocess.run([*inside, command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "['.hermes-edge-door.lock']"]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
