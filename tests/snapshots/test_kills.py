"""Streams that are killed at random moments, again and again, and lose next to nothing.

More often than CI has time for, and with figures::

    KILLS=2000 pytest tests/snapshots/test_kills.py --log-cli-level=info
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from hermes_edge.engines.views import host_array
from hermes_edge.runtime import Runtime, Session
from hermes_edge.runtime.restoring import restore_session
from tests.snapshots.streams import (
    ASK,
    COMPACT,
    ENCODE,
    EVERY_S,
    IDLE,
    KEEP,
    MOMENT,
    SAVE,
    SAVED_FRAMES,
    SAVES,
    STEPS,
    STREAM,
    WRITE,
    ask,
    frame,
    new_session,
    open_board,
    question_behind,
)

_log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KILLS", "200"))
# Kills of one stream, each of which went on from what the one before had left.
KILLS_IN_A_ROW = 20
STAGES = {"encode": ENCODE, "compact": COMPACT, "ask": ASK, "moment": MOMENT, "write": WRITE}
# At any moment of a start, long before the first save too. Never the first kill of a stream.
START = "start"
ORDER = [*STAGES, START]
PATIENCE_S = 120.0
# For a save on a machine that is busy with much else.
SLACK_S = 10.0


def memory_of(session: Session) -> int:
    """A number for every committed byte."""
    store = session._parts.store
    parts: list[bytes] = []
    for layer, rows in enumerate(store.rows):
        parts += [host_array(view).tobytes() for view in store.committed(layer)]
        parts += [a.tobytes() for a in (rows.position, rows.frame, rows.time, rows.weight)]
    return hash(tuple(parts))


@dataclass
class Unbroken:
    """The run that nobody kills, as far as it has been needed."""

    session: Session
    frames: int = 0
    answers: dict[int, tuple[int, ...]] = field(default_factory=dict)
    memories: dict[tuple[int, bool], int] = field(default_factory=dict)

    def until(self, frames: int) -> None:
        """Feed and ask; remember every state, before and after a question."""
        while self.frames <= frames:
            self.memories[self.frames, False] = memory_of(self.session)
            if (question := question_behind(self.frames)) is not None:
                self.answers[self.frames] = ask(self.session, question)
                self.memories[self.frames, True] = memory_of(self.session)
            self.session.feed(frame(self.frames), 0.5 * self.frames)
            self.frames += 1


@pytest.fixture(scope="module")
def runtime(random_bundle: Path) -> Runtime:
    return Runtime.load(random_bundle, threads=1)


@pytest.fixture(scope="module")
def server(random_bundle: Path) -> Iterator[subprocess.Popen[str]]:
    """Forks streams."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.snapshots.streams", str(random_bundle)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def stream_until_killed(
    server: subprocess.Popen[str], folder: Path, board_path: Path, stage: str, chance: random.Random
) -> tuple[int, int]:
    """Wait for a save, some frames and the stage, then kill; frames of the last save, stage."""
    board_path.write_bytes(bytes(64))
    board = open_board(board_path)
    stdin, stdout = pipes(server)
    stdin.write(json.dumps({"folder": str(folder), "board": str(board_path)}) + "\n")
    stdin.flush()
    pid = int(stdout.readline())
    try:
        if stage == START:
            time.sleep(chance.uniform(0, 0.05))
            return 0, IDLE
        place = SAVE if stage in ("moment", "write") else STREAM
        least_steps, wanted = board[STEPS] + chance.randrange(1, 12), STAGES[stage]
        give_up = time.monotonic() + PATIENCE_S
        while not (board[SAVES] and board[STEPS] >= least_steps):
            assert time.monotonic() < give_up, f"no save in {PATIENCE_S} s"
            time.sleep(0.001)
        while board[place] != wanted:
            assert time.monotonic() < give_up, f"no {stage} in {PATIENCE_S} s"
            time.sleep(0.0001)
        # So that not every kill falls on the first instructions of its stage.
        time.sleep(chance.choice((0.0, chance.uniform(0, 0.003))))
    finally:
        os.kill(pid, signal.SIGKILL)
        status = int(stdout.readline())
    assert status == -signal.SIGKILL
    return int(board[SAVED_FRAMES]), int(board[place])


def pipes(server: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert server.stdin is not None and server.stdout is not None
    return server.stdin, server.stdout


@pytest.mark.slow
def test_killed_streams_go_on_as_if_nothing_had_happened(
    runtime: Runtime, server: subprocess.Popen[str], tmp_path: Path
) -> None:
    unbroken = Unbroken(new_session(runtime))
    hit = dict.fromkeys(ORDER, 0)
    oldest_s, halves = 0.0, 0
    kept_frames = dict[Path, int]()
    for kill in range(KILLS):
        chance = random.Random(kill)
        folder = tmp_path / f"stream-{kill // KILLS_IN_A_ROW}"
        stage = ORDER[kill % len(ORDER)]
        saved_frames, found = stream_until_killed(server, folder, tmp_path / "board", stage, chance)
        killed_at = time.time()
        hit[stage] += found == STAGES.get(stage, IDLE)

        # More than are kept where a kill came between a save and the deleting of what is too old;
        # and half of one, which is not taken for one.
        halves += len([*folder.glob(".hermes-edge-*.part")])
        assert 1 <= len([*folder.glob("stream-*.safetensors")]) <= KEEP + 2
        restored = restore_session(runtime, folder, None, None, {})
        assert restored.refused == ()
        assert restored.probe_deviation == 0.0
        session, record = restored.session, restored.record
        frames = session.memory().frames_seen
        # Not older than the newest save that the stream knew to be in place, or began with.
        assert frames >= max(saved_frames, kept_frames.get(folder, 0))
        kept_frames[folder] = frames
        if stage != START:
            oldest_s = max(oldest_s, killed_at - record.saved_at.timestamp())

        question = question_behind(frames)
        last = record.conversation
        asked = last is not None and last.question == question
        due = frames if question is not None and not asked else frames + 1
        while question_behind(due) is None:
            due += 1
        unbroken.until(due)
        assert memory_of(session) == unbroken.memories[frames, asked]
        for index in range(frames, due):
            session.feed(frame(index), 0.5 * index)
        next_question = question_behind(due)
        assert next_question is not None
        assert ask(session, next_question) == unbroken.answers[due]
    _log.info(
        "%d kills, in their stage %s, %d half files left, oldest memory %.3f s",
        *(KILLS, hit, halves, oldest_s),
    )
    assert min(hit.values()) > 0
    assert oldest_s < EVERY_S + SLACK_S
    assert halves > 0
    assert len(set(unbroken.answers.values())) > len(unbroken.answers) // 2
