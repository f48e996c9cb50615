"""Sessions that were saved and restored: bit by bit what they were, and what they become."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from hermes_edge.engines.views import Array, View, host_array
from hermes_edge.errors import QuestionError, SettingsError, SnapshotError, StorageError
from hermes_edge.memory import POLICY_NAMES
from hermes_edge.runtime import ProbeTokens, Runtime, SamplingParams, Session
from hermes_edge.runtime.consistency import STORED_DTYPE
from hermes_edge.runtime.restoring import restore_session
from hermes_edge.shipped import TINY_BUNDLE
from hermes_edge.snapshots import SnapshotFile
from hermes_edge.snapshots.layout import ITEM_BYTES, cache_names
from hermes_edge.spec import PRECISION_BYTES, PRECISION_DTYPE, Precision

Snapshot = Callable[[Session], list[bytes]]
Step = tuple[tuple[int, ...], list[bytes]]

SHORT = SamplingParams(max_new_tokens=3)
FRAMES = 18
# Behind a whole chunk with nothing waiting, in a chunk with frames waiting, in a chunk whose
# frames a question has had encoded, and before anything.
MOMENTS = (8, 11, 14, 0)
MEND = "Restore an older snapshot; hermes-edge snapshot list FOLDER shows what is there"


def new_session(runtime: Runtime, policy: str = "hermes") -> Session:
    budget = 1024 if policy == "full" else 64
    return runtime.session(policy=policy, budget_tokens=budget, chunk_frames=4, reserve_tokens=256)


def frame(index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(index).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def step(session: Session, index: int) -> tuple[int, ...]:
    """One frame, and a question now and then, which conditions the probes to come."""
    session.feed(frame(index), 0.5 * index)
    if index % 4 != 1:
        return ()
    return session.ask(f"What was number {index}?", SHORT).token_ids


def advance(session: Session, start: int, stop: int, snapshot: Snapshot) -> list[Step]:
    return [(step(session, n), snapshot(session)) for n in range(start, stop)]


def saved_at(session: Session, frames: int, path: Path) -> Path:
    """A snapshot of a session that has seen so many frames."""
    for index in range(frames):
        step(session, index)
    return session.save(path).path


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_a_restored_session_goes_on_exactly(
    runtime: Runtime, snapshot: Snapshot, tmp_path: Path, policy: str
) -> None:
    unbroken = advance(new_session(runtime, policy), 0, FRAMES, snapshot)
    saving = new_session(runtime, policy)
    for index in range(FRAMES + 1):
        saving.save(tmp_path / f"{index}.safetensors")
        if index < FRAMES:
            step(saving, index)
    # Nineteen saves have left no trace.
    assert snapshot(saving) == unbroken[-1][1]
    for moment in MOMENTS:
        session = runtime.restore(tmp_path / f"{moment}.safetensors")
        if moment:
            assert snapshot(session) == unbroken[moment - 1][1]
        assert advance(session, moment, FRAMES, snapshot) == unbroken[moment:]
    report, last = runtime.restore(tmp_path / f"{FRAMES}.safetensors").memory(), saving.memory()
    assert report == last
    # The released policy counts the prefix too, so it begins a chunk earlier.
    assert saving.timings().compactions == {"full": 0, "hermes-released": 4}.get(policy, 3)


def test_the_moments_are_what_they_should_be(runtime: Runtime, tmp_path: Path) -> None:
    found = []
    for moment in MOMENTS:
        path = saved_at(new_session(runtime), moment, tmp_path / f"{moment}.safetensors")
        with SnapshotFile(path) as file:
            record = file.record
        found.append((record.frames, record.frames_in_chunk, record.waiting_frames))
    assert found == [(8, 0, 0), (10, 2, 1), (14, 2, 0), (0, 0, 0)]


def test_what_comes_back_is_said(runtime: Runtime, tmp_path: Path) -> None:
    path = saved_at(new_session(runtime), 11, tmp_path / "one.safetensors")
    restored = restore_session(runtime, path, None, None, {})
    assert restored.probe_deviation == 0.0
    assert (restored.path, restored.refused) == (path, ())
    record = restored.record
    assert (record.stream, record.model_id) == ("stream", "hermes-tiny-random")
    assert record.conversation is not None
    assert record.conversation.question == "What was number 9?"
    timings = restored.session.timings()
    assert (timings.frames, timings.chunks, timings.compactions) == (10, 2, 1)
    assert timings.encode_ms == 0.0


def test_frames_without_vision_and_probes_of_the_caller(
    runtime: Runtime, visual_tokens: Callable[..., np.ndarray], snapshot: Snapshot, tmp_path: Path
) -> None:
    def probes(_: object) -> ProbeTokens:
        return ProbeTokens((5, 6, 7), (8, 9))

    session = runtime.session(budget_tokens=64, chunk_frames=4, prefix_ids=[], probes=probes)
    session.feed_tokens(visual_tokens(10, 1), 1.0)
    path = session.save(tmp_path / "own.safetensors").path
    text = (
        f"{path} was saved by a session with probes of its own: required the argument probes as it "
        "was, found none given"
    )
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        runtime.restore(path)
    with_guidance = new_session(runtime).save(tmp_path / "guided.safetensors").path
    text = (
        f"{with_guidance} was saved by a session without probes of its own: required the argument "
        "probes left out, found probes"
    )
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        runtime.restore(with_guidance, probes=probes)
    restored = runtime.restore(path, probes=probes)
    for each in (session, restored):
        each.feed_tokens(visual_tokens(6, 2), 2.0)
    assert snapshot(restored) == snapshot(session)


@pytest.mark.parametrize("read_first", [0, 4, 10])
def test_rows_of_a_moment_survive_compactions(
    runtime: Runtime, snapshot: Snapshot, read_first: int
) -> None:
    """Whatever has been read when the slabs are written over, the rest is copied before."""
    session = new_session(runtime)
    advance(session, 0, 9, snapshot)
    store = session._parts.store
    before = [[host_array(v).tobytes() for v in store.committed(n)] for n in range(10)]
    with store.freeze() as frozen, store.freeze() as other:
        first = [frozen.take(layer) for layer in range(read_first)]
        advance(session, 9, 18, snapshot)
        taken = first + [frozen.take(layer) for layer in range(read_first, 10)]
        twice = [other.take(layer) for layer in range(10)]
    assert [[array.tobytes() for array in layer] for layer in taken] == before
    assert [[array.tobytes() for array in layer] for layer in twice] == before
    assert store._frozen == []


@pytest.mark.parametrize("lost", [0, 9])
def test_a_lack_of_memory_ends_the_save_and_not_the_stream(
    runtime: Runtime, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    unbroken, session = new_session(runtime), new_session(runtime)
    steps = advance(unbroken, 0, 18, snapshot)
    assert advance(session, 0, 9, snapshot) == steps[:9]
    store = session._parts.store
    with store.freeze() as frozen:
        address = store.slab(lost)[1].address
        download = frozen._device.download

        def short(view: View) -> Array:
            if view.address == address:
                raise MemoryError
            return download(view)

        with monkeypatch.context() as patch:
            patch.setattr(frozen._device, "download", short)
            compacted = session.timings().compactions
            for index in range(9, 12):
                step(session, index)
            assert session.timings().compactions == compacted + 1
        text = (
            "there is no memory to copy the rows that are saved: required room for them beside the "
            "stream. Lower the budget, or end other programs"
        )
        with pytest.raises(StorageError, match=rf"\A{re.escape(text)}\Z"):
            [frozen.take(layer) for layer in range(10)]
    assert snapshot(session) == steps[11][1]
    assert advance(session, 12, 18, snapshot) == steps[12:]


def test_saves_from_another_thread_while_the_stream_goes_on(
    runtime: Runtime, snapshot: Snapshot, tmp_path: Path
) -> None:
    """Every snapshot is some moment of the unbroken run, whole."""
    states = {0: snapshot(new_session(runtime))}
    unbroken = new_session(runtime)
    for index in range(40):
        step(unbroken, index)
        states[unbroken.timings().frames] = snapshot(unbroken)
    session, done, paths = new_session(runtime), threading.Event(), list[Path]()

    def save() -> None:
        while not done.is_set():
            paths.append(session.save(tmp_path / f"{len(paths)}.safetensors").path)

    saver = threading.Thread(target=save)
    saver.start()
    for index in range(40):
        step(session, index)
    done.set()
    saver.join()
    assert snapshot(session) == states[40]
    assert len(paths) > 3
    for path in paths:
        restored = runtime.restore(path)
        assert snapshot(restored) == states[restored.timings().frames]


@pytest.fixture
def saved(runtime: Runtime, tmp_path: Path) -> Path:
    return saved_at(new_session(runtime), 6, tmp_path / "one.safetensors")


@pytest.mark.parametrize(
    ("wanted", "required", "found"),
    [
        ({"policy": "window"}, "policy hermes", "policy window"),
        ({"budget_tokens": 128}, "budget_tokens 64", "budget_tokens 128"),
        ({"budget_bytes": 64 * 5120}, "budget_tokens 64", "budget_tokens 128"),
        ({"chunk_frames": 2, "policy": None}, "chunk_frames 4", "chunk_frames 2"),
        (
            {"scoring": "embedding", "reindexing": "eager"},
            "scoring None, reindexing None",
            "scoring embedding, reindexing eager",
        ),
    ],
)
def test_settings_that_contradict_the_snapshot(
    runtime: Runtime, saved: Path, wanted: dict[str, Any], required: str, found: str
) -> None:
    if "budget_bytes" in wanted:
        decoder, precision = runtime.manifest.decoder, runtime.manifest.precision
        wanted = {"budget_bytes": 128 * decoder.kv_bytes_per_token(precision)}
    text = (
        f"{saved} was saved with other settings: required {required}, found {found}. "
        "Leave them out, or begin a new memory"
    )
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        runtime.restore(saved, **wanted)


def test_settings_that_agree_and_unknown_ones(runtime: Runtime, saved: Path) -> None:
    runtime.restore(saved, policy="hermes", budget_tokens=64, chunk_frames=4, system=None)
    runtime.restore(saved, system="You are a helpful assistant.", reserve_tokens=256)
    with pytest.raises(SettingsError, match="other settings: required prefix_ids"):
        runtime.restore(saved, system="Be brief.")
    with pytest.raises(SettingsError, match=r"\Aunknown setting: required policy, .*found budget"):
        runtime.restore(saved, budget=64)


def test_another_bundle_is_refused(saved: Path) -> None:
    tiny = Runtime.load(TINY_BUNDLE, threads=1, check_hashes=False)
    theirs = tiny.manifest
    with pytest.raises(SnapshotError) as caught:
        tiny.restore(saved)
    assert str(caught.value) == (
        f"{saved} is of another bundle: required {theirs.model_id} ({theirs.identity[:16]}), "
        "found hermes-tiny-random (f245a40ef8a20974). Restore it with the bundle that it was saved "
        "with"
    )


def test_a_bundle_has_the_identity_of_its_copies(runtime: Runtime) -> None:
    manifest = runtime.manifest
    assert manifest.model_copy(update={"files": manifest.files[::-1]}).identity == manifest.identity
    assert manifest.model_copy(update={"files": manifest.files[1:]}).identity != manifest.identity


@pytest.mark.parametrize("precision", PRECISION_DTYPE)
def test_rows_of_every_precision_can_be_stored(precision: Precision) -> None:
    stored = STORED_DTYPE[PRECISION_DTYPE[precision]]
    assert ITEM_BYTES[stored] == PRECISION_BYTES[precision]


def name(second: int, stream: str = "stream") -> str:
    return f"{stream}-20261125T1305{second:02d}.000Z.safetensors"


@pytest.fixture
def folder(runtime: Runtime, tmp_path: Path) -> Path:
    """Snapshots of 2, 5 and 8 frames, and what is none."""
    (tmp_path / "folder").mkdir()
    session = new_session(runtime)
    for second, start in enumerate((0, 3, 6)):
        for index in range(start, start + 2 + second % 2):
            session.feed(frame(index), 0.5 * index)
        session.save(tmp_path / "folder" / name(second))
    (tmp_path / "folder" / ".hermes-edge-0.part").write_bytes(b"half")
    (tmp_path / "folder" / "notes.txt").write_text("none")
    return tmp_path / "folder"


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_the_newest_of_a_folder_is_restored(runtime: Runtime, folder: Path) -> None:
    assert runtime.restore(folder).memory().frames_seen == 7


def test_the_newest_good_one_is_restored_and_that_is_said(
    runtime: Runtime, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip(folder / name(2), -1)
    os.truncate(folder / name(1), 1000)
    with caplog.at_level(logging.WARNING, logger="hermes_edge.snapshots"):
        restored = restore_session(runtime, folder, None, None, {})
    assert restored.session.memory().frames_seen == 2
    assert [path.name for path, _ in restored.refused] == [name(2), name(1)]
    assert caplog.messages == [
        f"a newer snapshot is passed over: {error}" for _, error in restored.refused
    ]
    assert "waiting.frames" in caplog.messages[0]


def test_what_is_passed_over_holds_no_memory_beside_the_one_that_is_restored(
    runtime: Runtime, folder: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = runtime.restore(folder).memory()
    room_for_one = memory.slab_bytes + memory.spare_bytes
    limited = Runtime.load(random_bundle, threads=1, memory_bytes=room_for_one)
    # As a device whose copies went wrong while these two were saved.
    load = SnapshotFile.raw

    def swapped(file: SnapshotFile, wanted: str) -> np.ndarray:
        keys, values = cache_names(4) if file.path.name in (name(1), name(2)) else ("", "")
        return load(file, {keys: values, values: keys}.get(wanted, wanted))

    monkeypatch.setattr(SnapshotFile, "raw", swapped)
    restored = restore_session(limited, folder, None, None, {})
    assert [path.name for path, _ in restored.refused] == [name(2), name(1)]
    assert all("does not compute" in str(error) for _, error in restored.refused)


def test_what_is_passed_over_is_said_where_an_older_one_is_refused_for_its_settings(
    runtime: Runtime, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(folder / name(2), 1000)
    with pytest.raises(SettingsError, match=f"{name(1)} was saved with other settings"):
        runtime.restore(folder, policy="uniform")
    (message,) = caplog.messages
    assert message.startswith(f"a newer snapshot is passed over: {folder / name(2)} ")


def test_no_good_one(runtime: Runtime, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for second in range(3):
        os.truncate(folder / name(second), 7)
    refusals = "; ".join(
        f"{folder / name(second)} is not a snapshot: required a file that save() wrote, found 7 "
        "bytes"
        for second in (2, 1, 0)
    )
    text = f"{folder} holds no snapshot to restore: required a good one, found {refusals}"
    with pytest.raises(SnapshotError, match=rf"\A{re.escape(text)}\Z"):
        runtime.restore(folder)
    # The error says all of it.
    assert caplog.messages == []


def test_a_folder_of_several_streams(runtime: Runtime, folder: Path) -> None:
    runtime.restore(folder / name(0)).save(folder / name(9, "door-2"), stream="door-2")
    text = f"{folder} holds several streams: required the name of one, found door-2, stream"
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        runtime.restore(folder)
    assert runtime.restore(folder, stream="stream").memory().frames_seen == 7
    assert runtime.restore(folder, stream="door-2").memory().frames_seen == 2
    text = (
        f"{folder} holds no snapshot to restore: required a good one of the stream door, found none"
    )
    with pytest.raises(SnapshotError, match=rf"\A{re.escape(text)}\Z"):
        runtime.restore(folder, stream="door")


def test_nothing_there(runtime: Runtime, tmp_path: Path) -> None:
    text = f"cannot read {tmp_path / 'none'}: found No such file or directory"
    with pytest.raises(SnapshotError, match=rf"\A{re.escape(text)}\Z"):
        runtime.restore(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    text = f"cannot read {tmp_path / 'pipe'}: found no regular file there"
    with pytest.raises(SnapshotError, match=rf"\A{re.escape(text)}\Z"):
        runtime.restore(tmp_path / "pipe")


def test_the_time_since_the_newest_frame_is_kept(runtime: Runtime, tmp_path: Path) -> None:
    """Saved while the source was away, restored, and saved again before it was back."""
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    session = new_session(runtime)
    session.feed(frame(0), 7.0, captured_s=time.monotonic() - 3600)
    session.save(paths[0])
    restored = restore_session(runtime, paths[0], None, None, {})
    restored.session.save(paths[1])
    for path in paths:
        with SnapshotFile(path) as file:
            assert file.record.newest_s == 7.0
            assert 3600 <= file.record.newest_age_s < 3660
        assert 3607 <= restore_session(runtime, path, None, None, {}).now_s < 3667
    # A capture in the future is now.
    session.feed(frame(1), 8.0, captured_s=time.monotonic() + 1e6)
    session.save(paths[0])
    with SnapshotFile(paths[0]) as file:
        assert file.record.newest_age_s == 0.0


@pytest.mark.parametrize("year", [1970, 2100])
def test_a_clock_that_went_back_or_was_not_set_tells_no_time(
    runtime: Runtime, tmp_path: Path, year: int
) -> None:
    path = tmp_path / "one.safetensors"
    session = new_session(runtime)
    session.feed(frame(0), 7.0)
    wrong = datetime(year, 1, 2, tzinfo=timezone.utc)
    with patch("hermes_edge.runtime.saving.now", lambda: wrong):
        session.save(path)
    assert 7.0 <= restore_session(runtime, path, None, None, {}).now_s < 8.0


def test_a_name_that_is_too_long(runtime: Runtime) -> None:
    with pytest.raises(SnapshotError) as refused:
        runtime.restore("x" * 300)
    assert str(refused.value) == f"cannot read {'x' * 300}: found File name too long"


def test_a_file_that_cannot_be_written(runtime: Runtime, saved: Path, tmp_path: Path) -> None:
    session = new_session(runtime)
    before = saved.read_bytes()
    fix = "Make room, or choose another folder"
    path = tmp_path / "missing" / "one.safetensors"
    text = f"cannot write {path}: found No such file or directory. {fix}"
    with pytest.raises(StorageError, match=rf"\A{re.escape(text)}\Z"):
        session.save(path)
    with pytest.raises(StorageError, match="found no regular file there"):
        session.save(tmp_path)
    with pytest.raises(SettingsError, match=r"found 'a/b'"):
        session.save(saved, stream="a/b")
    assert [*tmp_path.iterdir()] == [saved]
    assert saved.read_bytes() == before
    assert session._parts.store._frozen == []


@pytest.fixture
def poisoned(runtime: Runtime) -> Iterator[Session]:
    session = new_session(runtime)
    session.feed(frame(0), 0.0)
    session.flush()
    host_array(session._parts.store.committed(3)[1])[...] = np.nan
    yield session


def test_numbers_that_are_not_finite_replace_no_snapshot(poisoned: Session, saved: Path) -> None:
    before = saved.read_bytes()
    text = (
        "the memory holds numbers that are not finite and is not saved. Look at the frames' "
        "encoder; fp16 overflows where fp32 does not"
    )
    with pytest.raises(SnapshotError, match=rf"\A{re.escape(text)}\Z"):
        poisoned.save(saved)
    assert saved.read_bytes() == before


def test_rows_that_no_frame_explains_are_not_saved(runtime: Runtime, saved: Path) -> None:
    """As an interrupt in the middle of a chunk leaves them."""
    session = new_session(runtime)
    session.feed(frame(0), 0.0)
    session.flush()
    session._parts.encoder.times.frames = 0
    with pytest.raises(SnapshotError, match=r"\Athe memory contradicts itself: required rows of"):
        session.save(saved)


def test_a_streamed_answer_is_not_torn_apart(runtime: Runtime, saved: Path) -> None:
    session = runtime.restore(saved)
    answers = session.ask("What now?", SHORT, stream=True)
    next(answers)
    with pytest.raises(QuestionError, match="busy with a streamed answer"):
        session.save(saved)
    answers.close()
    session.save(saved)
    session.close()
    with pytest.raises(QuestionError, match="the session is closed"):
        session.save(saved)


def test_the_probe_refuses_a_memory_that_computes_otherwise(
    runtime: Runtime, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a device whose copies go wrong would."""
    load = SnapshotFile.raw

    def swapped(file: SnapshotFile, wanted: str) -> np.ndarray:
        keys, values = cache_names(4)
        return load(file, {keys: values, values: keys}.get(wanted, wanted))

    monkeypatch.setattr(SnapshotFile, "raw", swapped)
    with pytest.raises(SnapshotError) as caught:
        runtime.restore(saved)
    text = str(caught.value)
    assert text.startswith(
        f"{saved} does not compute what it computed when it was saved: required logits of the "
        "probe within 0.0001 of the largest, found 0."
    )
    assert text.endswith(
        ". Restore an older snapshot, or use the device and versions that it was saved with"
    )
