"""The thread that saves: when it saves, what it says, and that nothing stops it."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hermes_edge.errors import QuestionError, SettingsError, StorageError
from hermes_edge.snapshots import Saved, Saver
from hermes_edge.snapshots.folder import newest_first

if TYPE_CHECKING:
    from tests.snapshots.conftest import Write

OFTEN_S, NEVER_S = 0.01, 3600.0


class Fake:
    """A session that saves next to nothing, or raises what it is told to."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self.fails_with: Exception | None = None
        self.saves = threading.Semaphore(0)
        self.tries = threading.Semaphore(0)

    def save(self, path: str | Path, *, stream: str) -> Saved:
        self.tries.release()
        if self.fails_with is not None:
            raise self.fails_with
        self._write(Path(path))
        self.saves.release()
        return Saved(Path(path), 1000, 1.0, 2.0)


@pytest.fixture
def fake(write: Write) -> Fake:
    return Fake(write)


def await_(semaphore: threading.Semaphore, times: int) -> None:
    for _ in range(times):
        assert semaphore.acquire(timeout=60)


def test_it_saves_at_intervals_and_at_the_end(fake: Fake, tmp_path: Path) -> None:
    with Saver(fake, tmp_path / "new", every_s=OFTEN_S, keep=2, stream="door") as saver:
        await_(fake.saves, 5)
        during = saver.counts
    after = saver.counts
    assert 4 <= during.saves < after.saves
    assert after.failures == 0
    paths = newest_first(tmp_path / "new", "door")
    assert len(paths) == 2
    assert after.last == Saved(paths[0], 1000, 1.0, 2.0)
    saver.close()
    assert saver.counts == after


def test_what_is_saved_already_is_not_saved_again(fake: Fake, tmp_path: Path) -> None:
    progress = [7]
    with Saver(fake, tmp_path, every_s=OFTEN_S, progress=lambda: progress[0]) as saver:
        time.sleep(10 * OFTEN_S)
        assert saver.counts.saves == 0
        for step in (8, 9):
            progress[0] = step
            await_(fake.saves, 1)
        fake.fails_with = StorageError("no")
        progress[0] = 10
        await_(fake.tries, 4)
        fake.fails_with = None
        await_(fake.saves, 1)
        while saver.counts.saves < 3:
            time.sleep(OFTEN_S)
    assert saver.counts.saves == 3


def test_the_end_alone(fake: Fake, tmp_path: Path) -> None:
    with Saver(fake, tmp_path, every_s=NEVER_S) as saver:
        assert saver.counts.saves == 0
    assert saver.counts.saves == len(newest_first(tmp_path, "stream")) == 1


def test_failures_are_said_once_and_so_is_that_it_works_again(
    fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="hermes_edge.snapshots")
    with Saver(fake, tmp_path, every_s=OFTEN_S, keep=1) as saver:
        await_(fake.saves, 1)
        fake.fails_with = StorageError("cannot write x", found="No space left on device")
        fake.tries = threading.Semaphore(0)
        await_(fake.tries, 4)
        failed = saver.counts.failures
        kept = newest_first(tmp_path, "stream")
        fake.fails_with, fake.saves = None, threading.Semaphore(0)
        await_(fake.saves, 2)
    assert failed >= 3
    assert len(kept) == 1
    counts = saver.counts
    assert caplog.messages == [
        "stream: the memory could not be saved; the stream goes on, older snapshots stay, and it "
        "is tried every 0.01 s: cannot write x: found No space left on device",
        f"stream: saving works again after {counts.failures} failures",
    ]
    assert newest_first(tmp_path, "stream") != kept


def test_a_second_series_of_failures_is_said_again(
    fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Saver(fake, tmp_path, every_s=OFTEN_S):
        for _ in range(2):
            fake.fails_with, fake.tries = StorageError("no"), threading.Semaphore(0)
            await_(fake.tries, 3)
            fake.fails_with, fake.saves = None, threading.Semaphore(0)
            await_(fake.saves, 2)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 2


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "MemoryError"),
        (MemoryError("Unable to allocate 7 GiB"), "MemoryError: Unable to allocate 7 GiB"),
        (KeyError("layer"), "KeyError: 'layer'"),
    ],
)
def test_errors_that_nobody_foresaw_are_failures_like_others(
    fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, told: str
) -> None:
    fake.fails_with = error
    with Saver(fake, tmp_path, every_s=OFTEN_S) as saver:
        await_(fake.tries, 4)
        failures = saver.counts.failures
        fake.fails_with = None
        while saver.counts.saves == 0:
            time.sleep(0.001)
    assert failures >= 3
    first, again = caplog.records
    assert first.getMessage().endswith(f"and it is tried every 0.01 s: {told}")
    # Where it came from is seen, which an error of a disk need not tell.
    assert first.exc_info is not None
    assert again.getMessage().startswith("stream: saving works again after ")


def test_closing_fails_like_any_save(fake: Fake, tmp_path: Path) -> None:
    fake.fails_with = MemoryError()
    with Saver(fake, tmp_path, every_s=NEVER_S) as saver:
        pass
    assert saver.counts.failures == 1
    assert [*tmp_path.iterdir()] == []


def test_each_kind_of_error_is_said_once(
    fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Saver(fake, tmp_path, every_s=OFTEN_S):
        for error in (StorageError("no room"), MemoryError(), StorageError("no room")):
            fake.fails_with, fake.tries = error, threading.Semaphore(0)
            await_(fake.tries, 3)
    told = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert told == ["no room", "MemoryError"]
    assert [record.exc_info is None for record in caplog.records] == [True, False]


def test_old_snapshots_that_are_damaged_do_not_count(
    fake: Fake, write: Write, tmp_path: Path
) -> None:
    """Of an earlier process: two good ones between two damaged ones."""
    olds = [tmp_path / f"stream-20200101T00000{n}.000Z.safetensors" for n in range(4)]
    for old in olds:
        write(old)
    for damaged in (olds[0], olds[3]):
        os.truncate(damaged, 1000)
    with Saver(fake, tmp_path, every_s=NEVER_S, keep=2):
        pass
    assert newest_first(tmp_path, "stream")[1:] == [olds[3], olds[2]]


def test_nothing_old_goes_before_there_is_something_new(
    fake: Fake, write: Write, tmp_path: Path
) -> None:
    """What a session was restored from may be the oldest: newer ones need not suit its bundle."""
    for n in range(6):
        write(tmp_path / f"stream-20200101T00000{n}.000Z.safetensors")
    before = newest_first(tmp_path, "stream")
    with Saver(fake, tmp_path, every_s=NEVER_S, keep=2, progress=lambda: 0):
        pass
    assert newest_first(tmp_path, "stream") == before
    with Saver(fake, tmp_path, every_s=NEVER_S, keep=2):
        pass
    assert newest_first(tmp_path, "stream")[1:] == before[:1]


def test_a_save_that_is_in_place_though_it_failed_does_not_fill_the_disk(
    fake: Fake, write: Write, tmp_path: Path
) -> None:
    """As where the folder could not be synced."""

    class Unsynced(Fake):
        def save(self, path: str | Path, *, stream: str) -> Saved:
            super().save(path, stream=stream)
            raise StorageError("cannot write it")

    session = Unsynced(write)
    with Saver(session, tmp_path, every_s=OFTEN_S, keep=2) as saver:
        await_(session.saves, 8)
    assert saver.counts.saves == 0
    assert len(newest_first(tmp_path, "stream")) == 2


def test_an_old_snapshot_that_cannot_be_deleted_is_no_failure_of_a_save(
    fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, stays = Path.unlink, list[Path]()

    def refusing(path: Path, missing_ok: bool = False) -> None:
        if not stays:
            stays.append(path)
        if path in stays:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    with Saver(fake, tmp_path, every_s=OFTEN_S, keep=1) as saver:
        await_(fake.saves, 5)
    assert (saver.counts.failures, saver.counts.saves >= 5) == (0, True)
    assert len(newest_first(tmp_path, "stream")) == 2
    assert [record.__dict__["figures"] for record in caplog.records] == [{"stream": "stream"}]
    assert caplog.messages == [
        f"stream: older snapshots could not be deleted: cannot delete {stays[0]}: found Operation "
        "not permitted"
    ]


def test_a_folder_that_goes_and_comes_back(fake: Fake, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    with Saver(fake, folder, every_s=OFTEN_S, keep=1) as saver:
        await_(fake.saves, 1)
        folder.rename(tmp_path / "gone")
        failures = saver.counts.failures
        while saver.counts.failures < failures + 2:
            time.sleep(0.001)
        folder.mkdir()
        fake.saves = threading.Semaphore(0)
        await_(fake.saves, 1)
    assert len(newest_first(folder, "stream")) == 1


def test_a_thread_that_holds_the_session_can_close(fake: Fake, tmp_path: Path) -> None:
    """The other thread may be waiting for what this one holds."""
    entered, free = threading.Event(), threading.Event()

    def busy(path: str | Path, *, stream: str) -> Saved:
        if threading.current_thread().name == "hermes-edge-saver":
            entered.set()
            free.wait(60)
        raise QuestionError("the session is busy with a streamed answer")

    fake.save = busy  # type: ignore[method-assign]
    saver = Saver(fake, tmp_path, every_s=OFTEN_S)
    assert entered.wait(60)
    saver.close()
    assert saver.counts.failures == 1
    free.set()


@pytest.mark.parametrize("every_s", [0.0, -1.0, float("nan"), float("inf")])
def test_intervals_that_are_none(
    fake: Fake, tmp_path: Path, raises: Callable[..., Any], every_s: float
) -> None:
    text = f"save-every is out of range: required above 0 s, found {every_s}"
    with raises(SettingsError, text):
        Saver(fake, tmp_path, every_s=every_s)


def test_keeping_nothing(fake: Fake, tmp_path: Path, raises: Callable[..., Any]) -> None:
    with raises(SettingsError, "keep is out of range: required at least 1, found 0"):
        Saver(fake, tmp_path, every_s=1, keep=0)
    assert [*tmp_path.iterdir()] == []
