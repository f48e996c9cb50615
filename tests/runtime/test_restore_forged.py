"""Files that no stream has left: refused before they cost anything, and an older one is taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.errors import SettingsError, SnapshotError
from hermes_edge.runtime import Runtime, Session
from hermes_edge.runtime.restoring import Restored, restore_session
from hermes_edge.snapshots import SnapshotFile, SnapshotRecord
from tests.snapshots.forging import forge, write_sparse


def name(second: int, stream: str = "door") -> str:
    return f"{stream}-20261125T1305{second:02d}.000Z.safetensors"


def frame(index: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def new_session(runtime: Runtime, policy: str = "hermes") -> Session:
    return runtime.session(policy=policy, budget_tokens=64, chunk_frames=4, reserve_tokens=64)


@pytest.fixture(scope="module")
def saved(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    session = new_session(runtime)
    for index in range(6):
        session.feed(frame(index), 0.5 * index)
    return session.save(tmp_path_factory.mktemp("forged") / name(0), stream="door").path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """One snapshot that is good."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name(0)).hardlink_to(saved)
    return tmp_path / "folder"


def passed_over(runtime: Runtime, folder: Path) -> str:
    """What is said of the newest one; the older one is restored."""
    restored: Restored = restore_session(runtime, folder, "door", None, {})
    assert restored.path == folder / name(0)
    ((path, error),) = restored.refused
    assert path == folder / name(1)
    return str(error)


@pytest.mark.parametrize("position", [(1 << 63) - 1, 1 << 62, 2048 + 64])
def test_positions_that_no_stream_reaches(runtime: Runtime, folder: Path, position: int) -> None:
    path = forge(folder / name(1), folder / name(0), "layers.3.position", position)
    assert passed_over(runtime, folder) == (
        f"{path} cannot be restored: found the memory contradicts itself: required rows of one "
        "stream, found layer 3: positions that do not rise from 0 to at most 2111"
    )


@pytest.mark.parametrize(
    ("policy", "furthest"), [("hermes", 1900), ("hermes-released", 990), ("window", 1900)]
)
def test_positions_that_a_stream_reaches(
    runtime: Runtime, tmp_path: Path, policy: str, furthest: int
) -> None:
    """Past every re-indexing, at chunk ends and within chunks."""
    session, most = new_session(runtime, policy), 0
    for index in range(140):
        session.feed(frame(0), 0.5 * index)
        session.save(tmp_path / "any.safetensors")
        most = max([most, *(layer.next_position for layer in session._parts.store.rows)])
    assert most >= furthest
    runtime.restore(tmp_path / "any.safetensors")


def of_rows(rows: int) -> Callable[[SnapshotRecord], dict[str, Any]]:
    return lambda record: {"rows": (rows, *record.rows[1:])}


def of_geometry(**update: int) -> Callable[[SnapshotRecord], dict[str, Any]]:
    return lambda record: {"geometry": record.geometry.model_copy(update=update)}


@pytest.mark.parametrize(
    ("promise", "fault"),
    [
        (of_rows(1 << 30), "damaged: required a record that fits its schema, found rows.0: Input"),
        (of_rows(1 << 24), "one stream, found layer 0: 16777216 rows instead of 21 to "),
        (lambda _: {"waiting_frames": 1 << 26}, "found 67108864 frames waiting where "),
        (of_geometry(vocabulary=1 << 31), "found a geometry of layers=10 "),
        (of_geometry(head_size=1 << 24), "found a geometry of layers=10 "),
    ],
)
def test_a_header_that_promises_what_nobody_has(
    runtime: Runtime,
    folder: Path,
    promise: Callable[[SnapshotRecord], dict[str, Any]],
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused by its record: nothing of that size is read or allocated."""
    with SnapshotFile(folder / name(0)) as file:
        record = file.record
    assert write_sparse(folder / name(1), record.model_copy(update=promise(record))) > 100 << 20
    read = SnapshotFile.raw

    def small(file: SnapshotFile, tensor: str) -> np.ndarray[Any, Any]:
        assert file.path == folder / name(0)
        return read(file, tensor)

    monkeypatch.setattr(SnapshotFile, "raw", small)
    assert fault in passed_over(runtime, folder)


def test_faults_without_end_are_cut_short(runtime: Runtime, folder: Path) -> None:
    rows = dict.fromkeys(range(10), 1 << 10)
    with SnapshotFile(folder / name(0)) as file:
        write_sparse(folder / name(1), file.record.model_copy(update={"rows": (*rows.values(),)}))
    text = passed_over(runtime, folder)
    assert "layer 4: 1024 rows instead" in text and text.endswith("; and 5 more")


def test_a_file_that_has_the_name_of_another_stream(runtime: Runtime, folder: Path) -> None:
    path = forge(folder / name(1), folder / name(0), stream="yard")
    assert passed_over(runtime, folder) == (
        f"{path} is of another stream: required door, found yard. Restore the file itself, not its "
        "folder, or give it its stream's name back"
    )
    path.rename(folder / name(1, "gate"))
    with pytest.raises(SnapshotError, match=r"a good one of the stream gate, found .*found yard"):
        runtime.restore(folder, stream="gate")
    # By its own path it is asked for, whatever its name is.
    assert restore_session(runtime, folder / name(0), "gate", None, {}).record.stream == "door"


@pytest.mark.parametrize(
    ("update", "quoted"),
    [
        ({"model_id": "\x1b[2Jx\nforged", "bundle": "0" * 64}, r"found '\x1b[2Jx\nforged' (0000"),
        ({"model_id": "x" * 900_000, "bundle": "0" * 64}, "found 'xxxxxxxxxxxx...xxxxxxxxxxxxx' ("),
        ({"bands": ("\x1b[31m",) * 10}, "found bands.0: String should match"),
    ],
)
def test_what_a_file_says_is_quoted_in_few_words(
    runtime: Runtime, saved: Path, tmp_path: Path, update: dict[str, Any], quoted: str
) -> None:
    path = forge(tmp_path / "forged.safetensors", saved, **update)
    with pytest.raises(SnapshotError) as refused:
        runtime.restore(path)
    assert quoted in str(refused.value)
    assert len(str(refused.value)) < 500 and str(refused.value).isprintable()


def test_options_that_none_can_have_are_quoted_in_few_words(
    runtime: Runtime, saved: Path, tmp_path: Path
) -> None:
    with SnapshotFile(saved) as file:
        options = file.record.options
    for update in ({"policy": "x" * 900_000}, {"scoring": "x" * 900_000}):
        path = forge(tmp_path / "forged", saved, options=options.model_copy(update=update))
        with pytest.raises(SnapshotError, match="that none can have: found unknown ") as refused:
            runtime.restore(path)
        assert len(str(refused.value)) < 500
    with pytest.raises(SettingsError, match="prefix_ids") as wrong:
        runtime.restore(saved, prefix_ids=range(1000))
    assert len(str(wrong.value)) < 500


def test_times_that_no_snapshot_holds_are_not_saved(runtime: Runtime, tmp_path: Path) -> None:
    session = new_session(runtime)
    session.feed(frame(0), 1e12)
    session.save(tmp_path / "any.safetensors")
    session.feed(frame(1), 1e300)
    text = (
        "the memory cannot be saved: required a record that fits its schema, found newest_s: Input "
        "should be less than or equal to 1000000000000"
    )
    with pytest.raises(SnapshotError, match=rf"\A{re.escape(text)}\Z"):
        session.save(tmp_path / "any.safetensors")
    assert runtime.restore(tmp_path / "any.safetensors").memory().newest_s == 1e12
