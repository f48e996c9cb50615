"""Streams that save in the background, as processes to be killed; forked from one that has loaded.

A path of a folder and of a board in, as a line of JSON; the process id comes back, then its status:

    {"folder": "FOLDER", "board": "FILE"}

ONNX Runtime has no thread of its own where it computes on one, so its sessions survive the fork.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from hermes_edge.errors import SnapshotError
from hermes_edge.runtime import Runtime, SamplingParams, Session
from hermes_edge.runtime.compaction import Compactor
from hermes_edge.snapshots import Saved, Saver, SnapshotFile
from hermes_edge.snapshots.file import write_snapshot

EVERY_S = 0.02
KEEP = 3
FRAMES_BETWEEN_QUESTIONS = 5
SAMPLED_TOKENS = 4

# What a board tells, each a number that the stream writes and the killer reads.
STREAM, SAVE, STEPS, SAVES, SAVED_FRAMES = range(5)
IDLE, ENCODE, COMPACT, ASK, MOMENT, WRITE = range(6)

Board = npt.NDArray[np.int64]


def open_board(path: Path) -> Board:
    """Numbers that two processes see."""
    return np.memmap(path, dtype=np.int64, mode="r+", shape=(8,))


def frame(index: int) -> npt.NDArray[np.uint8]:
    """Of a stream that is the same in every run."""
    return np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def question_behind(frames: int) -> str | None:
    """What is asked when so many frames have been fed."""
    due = frames > 0 and frames % FRAMES_BETWEEN_QUESTIONS == 0
    return f"What was number {frames}?" if due else None


def ask(session: Session, question: str) -> tuple[int, ...]:
    """Sampled, so that two memories seldom say the same."""
    params = SamplingParams(max_new_tokens=SAMPLED_TOKENS, temperature=1.5, seed=7)
    return session.ask(question, params).token_ids


def new_session(runtime: Runtime) -> Session:
    """The memory that is streamed into."""
    return runtime.session(budget_tokens=96, chunk_frames=4, reserve_tokens=256)


@contextmanager
def shown(board: Board, place: int, stage: int) -> Iterator[None]:
    """What is being done, on the board."""
    before, board[place] = board[place], stage
    try:
        yield
    finally:
        board[place] = before


class WatchedSaves:
    """A session whose saves are told to the board."""

    def __init__(self, session: Session, board: Board) -> None:
        self._session, self._board = session, board

    def save(self, path: str | Path, *, stream: str) -> Saved:
        """As of the session."""
        with shown(self._board, SAVE, MOMENT):
            saved = self._session.save(path, stream=stream)
        with SnapshotFile(saved.path) as file:
            self._board[SAVED_FRAMES] = file.record.frames + file.record.waiting_frames
        self._board[SAVES] += 1
        return saved


def watch(board: Board) -> None:
    """Compactions and writing of files are told to the board too."""
    carry_out = Compactor.carry_out

    def watched_compaction(*args: Any) -> None:
        with shown(board, STREAM, COMPACT):
            carry_out(*args)

    def watched_write(*args: Any) -> int:
        with shown(board, SAVE, WRITE):
            return write_snapshot(*args)

    patch.object(Compactor, "carry_out", watched_compaction).start()
    patch("hermes_edge.runtime.session.write_snapshot", watched_write).start()


def stream_for_ever(runtime: Runtime, folder: Path, board: Board) -> None:
    """Go on from the newest snapshot, or begin; does not return."""
    watch(board)
    session, asked = new_session(runtime), None
    if folder.exists():
        session = runtime.restore(folder)
        last = session._parts.history.last
        asked = None if last is None else last.question
    frames = session.memory().frames_seen
    with Saver(WatchedSaves(session, board), folder, every_s=EVERY_S, keep=KEEP):
        while True:
            question = question_behind(frames)
            if question is not None and question != asked:
                with shown(board, STREAM, ASK):
                    ask(session, question)
            with shown(board, STREAM, ENCODE):
                session.feed(frame(frames), 0.5 * frames)
            frames += 1
            board[STEPS] += 1
            # A camera waits between two frames.
            time.sleep(0.001)


def tell(number: int) -> None:
    """One line."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def serve(bundle: Path) -> None:
    """Fork a stream for every line."""
    runtime = Runtime.load(bundle, threads=1)
    new_session(runtime)  # Claims the workspace once for all.
    for line in sys.stdin:
        wish = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                stream_for_ever(runtime, Path(wish["folder"]), open_board(Path(wish["board"])))
            except SnapshotError as error:
                sys.stderr.write(f"{error}\n")
            finally:
                os._exit(1)
        tell(child)
        tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
