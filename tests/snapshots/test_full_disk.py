"""A disk that fills up while a stream is saved, and has room again: a real one, and a limit."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

STREAM = """
import json, logging, os, resource, sys, time
from pathlib import Path
from hermes_edge.runtime import Runtime
from hermes_edge.snapshots import Saver
from hermes_edge.snapshots.folder import newest_first
from tests.snapshots.streams import ask, frame, new_session

bundle, disk, limited = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "limit"
logging.basicConfig(filename=sys.argv[4], format="%(levelname)s %(message)s")
runtime = Runtime.load(bundle, threads=1, check_hashes=False)
session, frames = new_session(runtime), 0
filler = disk / "filler"

def stream_until(done):
    global frames
    for _ in range(100_000):
        if done():
            return
        session.feed(frame(frames), 0.5 * frames)
        frames += 1
        time.sleep(0.001)
    raise SystemExit("it never came to that")

def fill():
    try:
        with filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass

def limit(nbytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, resource.RLIM_INFINITY))

with Saver(session, disk, every_s=0.02, keep=2) as saver:
    stream_until(lambda: saver.counts.saves >= 3)
    if limited:
        limit(20_000)
    counted = saver.counts

    def failed_three_times_on_end():
        global counted
        if not limited:
            fill()
        if saver.counts.saves != counted.saves:
            counted = saver.counts
        return saver.counts.failures >= counted.failures + 3

    stream_until(failed_three_times_on_end)
    kept = [path.name for path in newest_first(disk, "stream")]
    seen_when_full = runtime.restore(disk).memory().frames_seen
    answered = len(ask(session, "What is it now?")) > 0
    if limited:
        limit(resource.RLIM_INFINITY)
    else:
        filler.unlink()
    saves = saver.counts.saves
    stream_until(lambda: saver.counts.saves >= saves + 3)
print(json.dumps({
    "frames": [frames, session.memory().frames_seen, runtime.restore(disk).memory().frames_seen],
    "kept": len(kept),
    "seen_when_full": seen_when_full,
    "answered": answered,
    "left": len([*disk.glob(".hermes-edge-*")]),
    "failures": saver.counts.failures,
}))
"""


def outcome(command: list[str], tmp_path: Path) -> dict[str, Any]:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    document["log"] = (tmp_path / "log").read_text().splitlines()
    return document


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disk", "limit"])
def test_the_stream_goes_on_and_the_old_snapshot_stays(
    random_bundle: Path, tmp_path: Path, kind: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = [str(random_bundle), str(disk), kind, str(tmp_path / "log")]
    command = [sys.executable, "-c", STREAM, *arguments]
    if kind == "disk":
        # Room for three snapshots, of 350 to 464 KB: two that are kept and one that is written.
        mount = f"mount -t tmpfs -o size=1500k tmpfs {shlex.quote(str(disk))}"
        inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
        tried = subprocess.run([*inside, mount], capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"no file system can be mounted here: {tried.stderr.strip()}")
        command = [*inside, f"{mount} && exec {shlex.join(command)}"]
    found = outcome(command, tmp_path)
    assert found["kept"] >= 1
    # The newest of those that were in place when the disk became full.
    assert 0 < found["seen_when_full"] < found["frames"][0]
    assert found["answered"]
    assert len(set(found["frames"])) == 1
    assert found["left"] == 0
    # A save that fails gives back what it took of the disk: the next may fit before that is filled.
    assert len(found["log"]) % 2 == 0
    reason = "No space left on device" if kind == "disk" else "File too large"
    failures = []
    for failed, again in zip(found["log"][::2], found["log"][1::2], strict=True):
        assert failed.startswith(
            "ERROR stream: the memory could not be saved; the stream goes on, older "
        )
        assert failed.endswith(f": found {reason}. Make room, or choose another folder")
        worked = re.fullmatch(r"WARNING stream: saving works again after (\d+) failures?", again)
        assert worked, again
        failures.append(int(worked[1]))
    # Said once for three on end.
    assert max(failures) >= 3
    assert sum(failures) == found["failures"]
