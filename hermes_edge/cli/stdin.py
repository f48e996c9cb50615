"""Questions that come on stdin, a line each."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hermes_edge.cli.transcript import Transcript, Warn
from hermes_edge.errors import HermesEdgeError
from hermes_edge.service.questions import DueQuestion, TimedQuestion
from hermes_edge.sources.redact import redacted_text

if TYPE_CHECKING:
    from hermes_edge.service.service import Service
    from hermes_edge.service.stream import Stream


def ask_from_stdin(service: Service, transcript: Transcript, say: Warn) -> None:
    """A thread that asks line after line, each of the stream that it names, or of all."""
    streams = {stream.name: stream for stream in service.streams}

    def ask(stream: Stream, text: str) -> None:
        due = DueQuestion(TimedQuestion(stream.newest_s, text, stream.name), late=False)
        try:
            transcript.answer(stream, due, stream.ask(text))
        except HermesEdgeError as error:
            say(f"{stream.name}: {error}")

    def read() -> None:
        for line in map(str.strip, sys.stdin):
            name, text = _addressee(line, streams)
            if name is not None and name not in streams:
                known = " or ".join(streams)
                # Hidden before it is cut: half a login does not look like one.
                found, *_ = redacted_text(line).partition("@")
                say(f"a question is for an unknown stream: required {known}, found {found!r}")
                continue
            try:
                for stream in [streams[name]] if name is not None else streams.values():
                    ask(stream, text)
            except OSError as error:
                # Nobody reads the answers any more.
                say(f"what comes on stdin is not asked any more: {error.strerror}")
                return

    threading.Thread(target=read, name="questions", daemon=True).start()


def _addressee(line: str, names: Iterable[str]) -> tuple[str | None, str]:
    """``door@ Who?`` to name and question; None and the line where no name stands before it."""
    for name in sorted(names, key=len, reverse=True):
        if line.startswith(f"{name}@"):
            return name, line[len(name) + 1 :].strip()
    name, at, text = line.partition("@")
    return (name, text.strip()) if at and re.fullmatch(r"\S+", name) else (None, line)
