"""What all verbs print with: consoles, JSON lines, and numbers as text."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from rich.console import Console
from rich.table import Column, Table

from hermes_edge.errors import StorageError

# Control characters but tab and newline: an answer must not steer the terminal.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


class _Console(Console):
    """A console whose closed pipe is an error like any other, and that writes to what stands in
    for stdout or stderr: rich 15.0 looks behind its own stand-in, and what it writes there is
    erased by a table that lives on the terminal."""

    @property
    def file(self) -> IO[str]:
        """The file given, else the present stdout or stderr."""
        return self._file or (sys.stderr if self.stderr else sys.stdout)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's."""
        with _written():
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Rich would end the thread by SystemExit, unseen where it is not the main one."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@contextmanager
def _written() -> Iterator[None]:
    """A file without room is told of like any other; that a reader is gone, the caller sees."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(
            "the output cannot be written",
            found=error.strerror,
            fix="Make room where it goes, or send it elsewhere",
        ) from None


def stdout(file: IO[str] | None = None) -> Console:
    """A console on this file, by default the present stdout; text is data, never markup."""
    return _Console(file=file, markup=False, highlight=False, emoji=False, soft_wrap=True)


def stderr() -> Console:
    """The same on stderr."""
    return _Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def warn(message: str) -> None:
    """One line on stderr."""
    stderr().print(f"warning: {without_controls(message)}", style="yellow")


def print_json(document: Mapping[str, object]) -> None:
    """One JSON document on one line of stdout, at once; refuses NaN and infinity."""
    with _written():
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        sys.stdout.flush()


def print_piece(text: str) -> None:
    """A piece of an answer, at once and unwrapped."""
    with _written():
        sys.stdout.write(without_controls(text))
        sys.stdout.flush()


def without_controls(text: str) -> str:
    """The text without control characters, tab and newline excepted."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """What a file wrote: it steers no terminal, and imitates no other line."""
    return without_controls(text).replace("\n", " ")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a title and a table below it."""
    # Folded, because a name with an ellipsis in it can be typed by nobody.
    drawn = Table(*(Column(name, overflow="fold") for name in columns), box=None)
    for row in rows:
        drawn.add_row(*map(one_line, row))
    stdout().print(f"\n{one_line(title)}", style="bold")
    _Console(markup=False, highlight=False, emoji=False).print(drawn)


def size(nbytes: int) -> str:
    """Bytes as ``12,288 B`` or ``229.4 MiB``."""
    if nbytes < 1 << 20:
        return f"{nbytes:,} B"
    unit, scale = ("GiB", 1 << 30) if nbytes >= 1 << 30 else ("MiB", 1 << 20)
    return f"{nbytes / scale:.1f} {unit}"


def clock(seconds: float) -> str:
    """Seconds as ``M:SS`` or ``H:MM:SS``, with tenths where there are any; infinity as ``end``."""
    if not math.isfinite(seconds * 10):
        return "end"
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    shown = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02d}:{shown}" if hours else f"{minutes}:{shown}"
