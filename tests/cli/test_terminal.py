"""What a person sees who runs it on a terminal: a real one, of the kernel's, and an emulator."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyte

COMMAND = [sys.executable, "-c", "from hermes_edge.cli import main; main()"]
# So many lines that nothing scrolls out of sight.
LINES, COLUMNS = 400, 160


def on_a_terminal(
    reap: Callable[[subprocess.Popen[Any]], None], *arguments: object
) -> tuple[int, list[str]]:
    """Exit code, and the lines that are on the screen at the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {name: text for name, text in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color"},
    )
    reap(process)
    os.close(theirs)
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    try:
        while data := os.read(ours, 65536):
            stream.feed(data)
    except OSError:
        pass  # The other side is closed.
    os.close(ours)
    return process.wait(), [line.rstrip() for line in screen.display if line.strip()]


def test_answers_and_warnings_stay_on_the_screen_above_the_table(
    random_bundle: Path,
    video: Path,
    tmp_path: Path,
    reap: Callable[[subprocess.Popen[Any]], None],
) -> None:
    code, lines = on_a_terminal(
        reap,
        *("run", f"door={video}", "--bundle", random_bundle, "--max-tokens", 4, "--threads", 1),
        *("--snapshots", tmp_path / "saved", "--ask", "door@0:05 Who is it?"),
        *("--ask", "door@15:00 Is it over?"),
    )
    text = "\n".join(lines)
    assert code == 0, text
    for seen in (
        "door [0:05] Who is it?",
        "seen up to 0:04",
        "warning: the video ends at 0:18",
        "door [0:18] Is it over?",
        "seen up to 0:18",
    ):
        assert seen in text, text
    (header,) = (n for n, line in enumerate(lines) if line.split()[:2] == ["stream", "state"])
    assert lines[header + 1].split()[:2] == ["door", "ended"]
