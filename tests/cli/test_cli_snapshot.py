"""``hermes-edge snapshot``: what its four verbs print, and how they end."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from hermes_edge.runtime import Runtime, SamplingParams
from hermes_edge.shipped import DEMO_VIDEO
from tests.snapshots.forging import forge

Cli = Callable[..., tuple[int, str, str]]

MEND = "Restore an older snapshot; hermes-edge snapshot list FOLDER shows what is there"


def name(second: int, stream: str = "door") -> str:
    return f"{stream}-20261125T1305{second:02d}.000Z.safetensors"


@pytest.fixture(scope="module")
def saved(random_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots of a stream after 5, 10 and 15 frames."""
    folder = tmp_path_factory.mktemp("saved")
    runtime = Runtime.load(random_bundle, threads=1, check_hashes=False)
    session = runtime.session(budget_tokens=64, chunk_frames=4, reserve_tokens=256)
    for index in range(15):
        session.feed(np.full((20, 30, 3), 10 * index, dtype=np.uint8), 1.5 * index)
        if index % 5 == 4:
            session.ask("What\tis\x1b[31m it?", SamplingParams(max_new_tokens=2))
            session.save(folder / name(index), stream="door")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    copy = tmp_path / "folder"
    copy.mkdir()
    for path in saved.iterdir():
        os.link(path, copy / path.name)
    return copy


def damage(path: Path) -> str:
    """Cut a snapshot short; what is then said of it."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])
    return f"{path} is damaged: required {len(content)} bytes, found {len(content) - 1}. {MEND}"


def test_list_shows_every_snapshot(cli: Cli, folder: Path) -> None:
    fault = damage(folder / name(14))
    code, out, err = cli("snapshot", "list", folder)
    assert code == 0
    title, header, *lines = out.strip().splitlines()
    assert title == f"snapshots in {folder}"
    assert header.split() == ["file", "stream", "saved", "video", "rows", "size", "state"]
    rows = [line.split() for line in lines]
    assert rows[0][0] == name(14) and rows[0][-1] == "bad"
    assert rows[1][:2] == [name(9), "door"]
    assert rows[1][3:] == ["0:13.5", "117", f"{(folder / name(9)).stat().st_size:,}", "B", "good"]
    assert datetime.fromisoformat(rows[1][2]).tzinfo is not None
    assert rows[2][0] == name(4) and rows[2][-1] == "good"
    assert err.strip() == f"warning: {fault}"


def test_list_as_json(cli: Cli, folder: Path) -> None:
    fault = damage(folder / name(4))
    code, out, err = cli("snapshot", "list", folder, "--json", "--stream", "door")
    assert (code, err) == (0, "")
    newest, middle, oldest = json.loads(out)["snapshots"]
    nbytes = (folder / name(14)).stat().st_size
    assert newest.pop("saved_at") > middle["saved_at"]
    assert newest == {
        "file": name(14),
        "bytes": nbytes,
        "stream": "door",
        "newest_s": 21.0,
        "frames": 15,
        "rows": 133,
        "good": True,
    }
    assert (oldest["good"], oldest["fault"]) == (False, fault)
    assert cli("snapshot", "list", folder, "--json", "--stream", "gate")[1] == (
        '{"snapshots": []}\n'
    )


def test_show(cli: Cli, folder: Path) -> None:
    code, out, err = cli("snapshot", "show", folder / name(14))
    assert (code, err) == (0, "")
    for line in (
        rf"snapshot {re.escape(str(folder / name(14)))}, [\d,.]+ (B|MiB)",
        "stream   door",
        r"saved    20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d\d\d\+00:00",
        r"bundle   hermes-tiny-random \(f245a40ef8a20974\)",
        "policy   hermes",
        "memory   budget 64 tokens, chunk 4 frames, reserve 256, prefix 21",
        "seen     15 frames until 0:21, 0 not encoded yet, 2 compactions",
        # A question must not steer the terminal.
        r"asked    What\s+is\[31m it\?",
        "answered .*",
    ):
        assert re.search(f"^{line}$", out, re.MULTILINE), line
    bands = [line.split() for line in out.splitlines()[-3:]]
    assert [band[:3] for band in bands] == [
        ["sensory", "1", "133"],
        ["working", "6", "133"],
        ["long-term", "3", "133"],
    ]
    code, out, err = cli("snapshot", "show", folder / name(14), "--json")
    document = json.loads(out)
    assert (document["frames"], document["options"]["policy"]) == (15, "hermes")
    assert [band["layers"] for band in document["bands"]] == [1, 6, 3]
    assert document["conversation"]["question"] == "What\tis\x1b[31m it?"


def test_verify(cli: Cli, folder: Path, random_bundle: Path) -> None:
    good = "".join(f"{name(second)}: good\n" for second in (14, 9, 4))
    assert cli("snapshot", "verify", folder) == (0, good, "")
    assert cli("snapshot", "verify", folder, "--bundle", random_bundle, "--threads", 1) == (
        *(0, good, ""),
    )
    fault = damage(folder / name(9))
    code, out, err = cli("snapshot", "verify", folder, "--bundle", random_bundle)
    assert (code, err.strip()) == (12, "error: 1 of 3 snapshots cannot be restored")
    assert out == f"{name(14)}: good\n{name(9)}: {fault}\n{name(4)}: good\n"
    assert cli("snapshot", "verify", folder / name(9))[:2] == (12, f"{name(9)}: {fault}\n")


def test_prune(cli: Cli, folder: Path) -> None:
    damage(folder / name(14))
    assert cli("snapshot", "prune", folder, "--keep", 1) == (
        *(0, f"deleted {name(4)}\n1 deleted\n", ""),
    )
    assert sorted(path.name for path in folder.iterdir()) == [name(14), name(9)][::-1]
    assert cli("snapshot", "prune", folder, "--keep", 1, "--stream", "gate")[1] == "0 deleted\n"
    assert cli("snapshot", "prune", folder, "--keep", 0)[0] == 2


def test_links_that_lead_nowhere_and_pipes(cli: Cli, folder: Path) -> None:
    (folder / name(20)).symlink_to("nowhere")
    os.mkfifo(folder / name(21))
    faults = [
        f"cannot read {folder / name(21)}: found no regular file there",
        f"cannot read {folder / name(20)}: found No such file or directory",
    ]
    code, out, err = cli("snapshot", "list", folder)
    assert (code, err.splitlines()) == (0, [f"warning: {fault}" for fault in faults])
    code, out, err = cli("snapshot", "list", folder, "--json")
    found = json.loads(out)["snapshots"][:2]
    assert (code, [entry["fault"] for entry in found]) == (0, faults)
    code, out, err = cli("snapshot", "verify", folder)
    assert code == 12
    assert out.splitlines()[:2] == [f"{name(21)}: {faults[0]}", f"{name(20)}: {faults[1]}"]


def test_listing_and_verifying_while_another_process_prunes(cli: Cli, folder: Path) -> None:
    """What is gone before it is read is neither bad nor an error."""
    stop = threading.Event()

    def come_and_go() -> None:
        for number in itertools.count():
            minute, moment = number // 1000 % 60, number % 1000
            passing = folder / f"door-20261124T12{minute:02d}00.{moment:03d}Z.safetensors"
            os.link(folder / name(4), passing)
            passing.unlink()
            if stop.is_set():
                return

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(30):
            assert cli("snapshot", "list", folder, "--json")[::2] == (0, "")
            assert cli("snapshot", "verify", folder)[0] == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("time_s", [float("nan"), float("inf"), float("-inf"), -1e308, 22.0])
def test_show_refuses_times_that_no_stream_has(
    cli: Cli, folder: Path, tmp_path: Path, time_s: float
) -> None:
    path = tmp_path / "forged.safetensors"
    forge(path, folder / name(14), "layers.3.time", time_s)
    for flags in ([], ["--json"]):
        code, out, err = cli("snapshot", "show", path, *flags)
        assert (code, out) == (12, "")
        assert err == f"error: {path} cannot be restored: found times that no stream has\n"


def test_a_file_steers_no_terminal(cli: Cli, folder: Path, random_bundle: Path) -> None:
    path = folder / name(14)
    forge(path, path, model_id="\x1b[31m", bundle="0" * 64)
    code, out, err = cli("snapshot", "verify", path, "--bundle", random_bundle)
    assert code == 12
    assert r"found '\x1b[31m' (0000" in out
    code, out, err = cli("run", "door=x\x1b[31m.mp4", "--bundle", random_bundle)
    assert (code, err) == (8, "error: x[31m.mp4 does not exist\n")


def test_a_name_that_is_too_long(cli: Cli, random_bundle: Path) -> None:
    long = "x" * 300
    fault = f"cannot read {long}: found File name too long"
    assert cli("snapshot", "verify", long)[:2] == (12, f"{long}: {fault}\n")
    assert cli("snapshot", "show", long) == (12, "", f"error: {fault}\n")
    run = ("run", str(DEMO_VIDEO), "--bundle", random_bundle, "--budget", 256)
    code, _, err = cli(*run, "--snapshots", long)
    assert (code, err) == (10, f"error: cannot make {long}: found File name too long\n")


def test_nothing_there(cli: Cli, tmp_path: Path) -> None:
    none = tmp_path / "none"
    missing = "No such file or directory"
    for verb in (
        ["list"],
        ["prune", "--keep", "2"],
        ["prune", "--keep", "2", "--stream", "door"],
    ):
        code, out, err = cli("snapshot", verb[0], none, *verb[1:])
        assert (code, out) == (10, "")
        assert err.strip() == f"error: cannot read {none}: found {missing}"
        assert not none.exists()
    for verb in (["show"], ["verify"]):
        code, out, err = cli("snapshot", verb[0], none)
        assert code == 12
        assert f"cannot read {none}: found {missing}" in out + err
    (tmp_path / "empty").mkdir()
    code, out, err = cli("snapshot", "verify", tmp_path / "empty")
    assert (code, err.strip()) == (12, f"error: {tmp_path / 'empty'} holds no snapshot")
    assert cli("snapshot", "prune", tmp_path / "empty", "--keep", 1) == (0, "0 deleted\n", "")
