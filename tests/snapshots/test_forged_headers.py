"""Headers written by hand under a checksum that is right: what is said of them is short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hermes_edge.errors import SnapshotError
from hermes_edge.snapshots import SnapshotFile
from hermes_edge.snapshots.file import write_snapshot
from hermes_edge.snapshots.layout import HEADER_START, seal_of
from tests.snapshots.conftest import tiny_record, tiny_tensors

if TYPE_CHECKING:
    from tests.snapshots.conftest import Write


def resealed(head: bytes, rest: bytes) -> bytes:
    """A header that was changed, its checksum made right."""
    head = (len(head) - 8).to_bytes(8, "little") + head[8:]
    start = 8 + len(HEADER_START)
    return head[:start] + seal_of(head).encode() + head[start + 64 :] + rest


@pytest.mark.parametrize(
    ("entry", "wrong", "said"),
    [
        ("format_version", "x" * 900_000, "version: required 2, found 'xxxxxxxxxxxx...x"),
        ("format_version", "\x1b[31m\n", r"version: required 2, found '\x1b[31m\n'."),
        ("sha256 layers.1.time", "x" * 900_000, "a sha256 of layers.1.time, found 'xxxxxxxxxxxx."),
        ("sha256 layers.1.time", "\x1b[31m\n", r"a sha256 of layers.1.time, found '\x1b[31m\n'."),
        ("sha256 layers.1.time", "A" * 64, "a sha256 of layers.1.time, found 'AAAAAAAAAAAA..."),
    ],
)
def test_entries_of_a_header_are_quoted_in_few_words(
    write: Write, tmp_path: Path, entry: str, wrong: str, said: str
) -> None:
    path = tmp_path / "forged"
    write(path)
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:length])
    header["__metadata__"][entry] = wrong
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(resealed(bytes(8) + text, content[length:]))
    with pytest.raises(SnapshotError) as refused:
        SnapshotFile(path)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 500 and str(refused.value).isprintable()


def test_names_and_seals_of_a_header_are_quoted_in_few_words(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "forged"
    write(path)
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:length])
    record = json.loads(header["__metadata__"]["record"])
    header["__metadata__"]["record"] = json.dumps({**record, "\x1b[31m" + "x" * 900_000: 1})
    text = json.dumps(header, separators=(",", ":")).encode()
    start = 8 + len(HEADER_START)
    odd_seal = content[:start] + b"\x1b[31m\n" + content[start + 6 :]
    for forged, said in (
        (resealed(bytes(8) + text, content[length:]), r"schema, found '\x1b[31mx"),
        (odd_seal, r"required sha256 '\x1b[31m\n"),
    ):
        path.write_bytes(forged)
        with pytest.raises(SnapshotError) as refused:
            SnapshotFile(path)
        assert said in str(refused.value)
        assert len(str(refused.value)) < 500 and str(refused.value).isprintable()


def test_times_beyond_all_streams(tmp_path: Path) -> None:
    for name in ("newest_s", "newest_age_s"):
        record = tiny_record().model_copy(update={name: 1e308})
        write_snapshot(tmp_path / "a", record, tiny_tensors(record))
        with pytest.raises(SnapshotError, match=f"found {name}: Input should be less than"):
            SnapshotFile(tmp_path / "a")
