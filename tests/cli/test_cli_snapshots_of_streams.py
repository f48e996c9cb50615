"""``hermes-edge run --snapshots``: who may write where, said before a model is loaded."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hermes_edge.snapshots.folder import newest_first

Cli = Callable[..., tuple[int, str, str]]
Spawn = Callable[..., "subprocess.Popen[str]"]


def test_two_processes_do_not_save_one_stream(
    random_bundle: Path,
    cli: Cli,
    spawn: Spawn,
    serve_http: Callable[..., Any],
    video: Path,
    tmp_path: Path,
) -> None:
    server, folder = serve_http(fps=10), tmp_path / "saved"
    args = ("--bundle", random_bundle, "--budget", 128, "--chunk-frames", 4, "--threads", 1)
    kept = ("--snapshots", folder, "--save-every", "200ms", "--fps", 10)
    first = spawn("run", f"door={server.url}", *args, *kept)
    deadline = time.monotonic() + 60
    while not folder.is_dir() or not newest_first(folder, "door"):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    # No model of that name: it has not been looked for.
    code, stdout, stderr = cli("run", f"door={video}", "--bundle", "nowhere", *kept)
    assert (code, stdout, stderr) == (
        2,
        "",
        f"error: another process saves the stream door in {folder}: required one at a time, found "
        ".hermes-edge-door.lock, which it has locked. Choose another folder, or name this stream "
        "otherwise: NAME=ADDRESS\n",
    )
    # Neither another name nor another folder is refused, and the first process goes on.
    for name, other in (("yard", folder), ("door", tmp_path / "other")):
        code, _, stderr = cli("run", f"{name}={video}", *args, "--snapshots", other, "--fps", 1)
        assert code == 0, stderr
    code, listed, _ = cli("snapshot", "list", folder)
    assert (code, "lock" in listed) == (0, False)
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    code, _, stderr = cli("run", f"door={video}", *args, *kept)
    assert (code, "door: goes on from " in stderr) == (0, True), stderr
    assert {path.suffix for path in folder.iterdir()} == {".safetensors"}


@pytest.mark.parametrize(
    ("file", "proposed"),
    [("my video.mp4", "my-video"), ("2024 hof.avi", "hof"), ("тест.avi", "stream")],
)
def test_a_name_that_snapshots_cannot_have(
    random_bundle: Path, cli: Cli, video: Path, tmp_path: Path, file: str, proposed: str
) -> None:
    path = tmp_path / file
    shutil.copy(video, path)
    kept = ("--snapshots", tmp_path / "saved")
    code, stdout, stderr = cli("run", path, "--bundle", "nowhere", *kept)
    found = ascii(path.stem)
    address = f"{proposed}={path}"
    assert (code, stdout, stderr) == (
        2,
        "",
        "error: the stream's name cannot be used in a file name: required 1 to 100 of "
        f"A-Z a-z 0-9 _ - . (neither - nor . in front), found {found}. Name it: '{address}'\n",
    )
    assert not (tmp_path / "saved").exists()
    # What is proposed is taken, and without snapshots any name is.
    args = ("--bundle", random_bundle, "--chunk-frames", 4, "--fps", 1, "--threads", 1)
    assert cli("run", address, *args, *kept)[0] == 0
    assert cli("run", path, *args)[0] == 0


def test_what_is_proposed_for_a_name_used_twice_can_be_used(
    cli: Cli, video: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my video.avi"
    shutil.copy(video, path)
    code, _, stderr = cli("run", path, path, "--bundle", "nowhere")
    assert (code, stderr) == (
        2,
        "error: a stream's name is used twice: required names that differ, found my video. "
        f"Name them: my-video-1={path}\n",
    )
