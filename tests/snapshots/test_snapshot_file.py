"""The file: readable by everyone's safetensors, written whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors import safe_open

from hermes_edge.errors import SnapshotError, StorageError
from hermes_edge.snapshots import Conversation, SnapshotFile, SnapshotRecord
from hermes_edge.snapshots.file import digest_of, raw_bytes, write_snapshot
from hermes_edge.snapshots.layout import cache_names, probe_ids, tensor_places
from hermes_edge.storage import remove_leftovers, writing_whole
from tests.snapshots.conftest import tiny_record, tiny_tensors
from tests.snapshots.forging import write_sparse

if TYPE_CHECKING:
    from tests.snapshots.conftest import Write


def test_the_safetensors_library_reads_it(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    record = write(path)
    with safe_open(path, "np") as theirs, SnapshotFile(path) as ours:
        metadata = theirs.metadata()
        assert (metadata["format"], metadata["format_version"]) == ("hermes-edge snapshot", "2")
        assert json.loads(metadata["record"]) == json.loads(record.model_dump_json())
        assert sorted(theirs.keys()) == sorted(tensor_places(record))
        for name, place in tensor_places(record).items():
            array = theirs.get_tensor(name)
            assert array.shape == place.shape
            assert array.tobytes() == ours.raw(name).tobytes()
            assert metadata[f"sha256 {name}"] == digest_of(array) == ours.digests[name]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_what_is_written_is_read(write: Write, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "one.safetensors"
    record = write(path, dtype=dtype)
    with SnapshotFile(path) as file:
        assert file.record == record
        assert file.nbytes == path.stat().st_size
        for name, tensor in zip(tensor_places(record), tiny_tensors(record), strict=True):
            assert file.raw(name).tobytes() == raw_bytes(tensor).tobytes()
        np.testing.assert_array_equal(file.array("layers.1.time"), [6.0, 7.0])
        np.testing.assert_array_equal(file.logits(), np.arange(9, 14, dtype=np.float32))
        file.check()
    assert [*tmp_path.iterdir()] == [path]


def test_tensors_lie_where_their_items_can_be_mapped(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "one.safetensors"
    record = write(path)
    header_bytes = int.from_bytes(path.read_bytes()[:8], "little")
    assert header_bytes % 8 == 0
    for name, place in tensor_places(record).items():
        if name.startswith("layers"):
            assert place.start % 4 == 0, name


def test_one_tensor_at_a_time_is_enough(tmp_path: Path) -> None:
    """Each is asked for when the one before has been written."""
    record = tiny_record()
    beside: list[int] = []

    def watched() -> Iterator[Any]:
        for tensor in tiny_tensors(record):
            (part,) = tmp_path.glob(".hermes-edge-*.part")
            beside.append(part.stat().st_size)
            yield tensor

    write_snapshot(tmp_path / "one.safetensors", record, watched())
    assert len(beside) == len(tensor_places(record))


@pytest.mark.parametrize("fails_at", [0, 3, 14])
def test_a_write_that_fails_leaves_the_old_file(
    write: Write, tmp_path: Path, fails_at: int
) -> None:
    path = tmp_path / "one.safetensors"
    record = write(path)
    before = path.read_bytes()

    def failing() -> Iterator[Any]:
        for index, tensor in enumerate(tiny_tensors(record)):
            if index == fails_at:
                raise KeyboardInterrupt
            yield tensor

    with pytest.raises(KeyboardInterrupt):
        write_snapshot(path, record, failing())
    with pytest.raises(ValueError, match=r"layers\.0\.position of 8 bytes instead of 24"):
        write_snapshot(path, record, iter([np.zeros(1)]))
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_a_record_that_no_reader_takes_is_not_written(write: Write, tmp_path: Path) -> None:
    """Otherwise it would take the place of snapshots that can be restored."""
    path = tmp_path / "a"
    write(path)
    before = path.read_bytes()
    conversation = Conversation(question="\N{OGHAM SPACE MARK}" * 200_000, answer="")
    record = changed(tiny_record(), conversation=conversation)
    with pytest.raises(SnapshotError) as refused:
        write_snapshot(path, record, tiny_tensors(record))
    assert re.fullmatch(
        "the memory's record is too long, and nobody could restore it: required at most 1048576 "
        r"bytes, found 12\d{5}\. Ask a shorter question",
        str(refused.value),
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("bands", [(), ("all",), ("all",) * 3])
def test_bands_of_other_layers(tmp_path: Path, bands: tuple[str, ...]) -> None:
    record = changed(tiny_record(), bands=bands)
    write_snapshot(tmp_path / "a", record, tiny_tensors(record))
    with pytest.raises(SnapshotError, match=rf"bands of 2 layers, found {len(bands)}\."):
        SnapshotFile(tmp_path / "a")


@contextmanager
def room_for(nbytes: int) -> Iterator[None]:
    """As a machine that has so much memory left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_file_of_more_than_fits_into_memory(tmp_path: Path, raises: Callable[..., Any]) -> None:
    path = tmp_path / "large"
    rows = 1 << 24
    write_sparse(path, changed(tiny_record(), rows=(rows, 2)))
    with SnapshotFile(path) as file, room_for(64 << 20):
        with raises(
            SnapshotError,
            f"there is no memory to read layers.0.position of {path}: required room for "
            f"{8 * rows} bytes. End other programs, or restore an older snapshot",
        ):
            file.array("layers.0.position")
        # Read block by block, it is what it is.
        with pytest.raises(SnapshotError, match=r"is damaged: required sha256 0{64} of layers\.0"):
            file.check()


def test_a_full_device_is_said(tmp_path: Path, raises: Callable[..., Any]) -> None:
    """A link would be written through, and a device is none of the files that are replaced."""
    path = tmp_path / "full"
    path.symlink_to("/dev/full")
    with raises(StorageError, f"cannot write {path}: found no regular file there"):
        write_snapshot(path, tiny_record(), tiny_tensors(tiny_record()))


def test_leftovers_go_unless_they_are_in_work(tmp_path: Path) -> None:
    left, kept = tmp_path / ".hermes-edge-0.part", tmp_path / "a.part"
    left.write_bytes(b"half")
    # Of somebody else's making; opening the pipe would wait for ever.
    names = [".hermes-edge-1.part", ".hermes-edge-2.part"]
    os.mkfifo(tmp_path / names[0])
    (tmp_path / names[1]).mkdir()
    kept.write_bytes(b"")
    with writing_whole(tmp_path / "new") as file:
        file.write(b"first ")
        remove_leftovers(tmp_path)
        file.write(b"second")
    assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "a.part", "new"]
    assert (tmp_path / "new").read_bytes() == b"first second"


def test_a_leftover_of_a_living_process_stays(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from hermes_edge.storage import writing_whole
with writing_whole(Path(sys.argv[1])) as file:
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "new")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        remove_leftovers(tmp_path)
        (part,) = tmp_path.iterdir()
        process.kill()
        process.wait()
        assert [*tmp_path.iterdir()] == [part]
        remove_leftovers(tmp_path)
        assert [*tmp_path.iterdir()] == []


def test_cleaning_takes_no_file_that_is_about_to_be_written(tmp_path: Path) -> None:
    """A process that starts, or prunes, cleans the folder in which another one saves."""
    code = """
import sys
from pathlib import Path
from hermes_edge.storage import remove_leftovers
print("cleaning", flush=True)
while True:
    remove_leftovers(Path(sys.argv[1]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            for number in range(1000):
                with writing_whole(tmp_path / "file") as file:
                    file.write(b"%d" % number)
        finally:
            process.kill()
    assert (tmp_path / "file").read_bytes() == b"999"


def test_locks_are_of_the_open_file(tmp_path: Path) -> None:
    """What the cleaning relies on: a lock is gone with its process, and seen by others."""
    path = tmp_path / "file"
    with path.open("wb") as one, path.open("rb") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def changed(record: SnapshotRecord, **update: object) -> SnapshotRecord:
    return record.model_copy(update=update)


def test_the_probe_hangs_on_all_that_its_logits_would_not_show(tmp_path: Path) -> None:
    record = changed(
        tiny_record(),
        geometry=tiny_record().geometry.model_copy(update={"vocabulary": 150_000}),
    )
    digests = {name: f"{index:064x}" for index, name in enumerate(tensor_places(record))}
    ids = probe_ids(record, digests)
    assert len(ids) == 8 and len(set(ids)) == 8
    assert all(0 <= id_ < 150_000 for id_ in ids)
    others = [
        changed(record, frames=4),
        changed(record, stream="gate"),
        changed(record, conversation=Conversation(question="What?", answer="A ring.")),
    ]
    cache = {name for layer in range(2) for name in cache_names(layer)} | {"probe.logits"}
    drawn = [ids, *(probe_ids(other, digests) for other in others)]
    for name in digests:
        other = probe_ids(record, {**digests, name: "f" * 64})
        if name in cache:
            assert other == ids
        else:
            drawn.append(other)
    assert len(set(drawn)) == len(drawn) == 4 + 10
    short = changed(record, options=record.options.model_copy(update={"reserve_tokens": 1}))
    assert len(probe_ids(short, digests)) == 1
