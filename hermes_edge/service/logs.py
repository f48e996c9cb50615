"""Log lines for people, or one JSON document each."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TextIO

LOGGER = "hermes_edge"

# What a message quotes may come from a file or a server: it steers no terminal and starts no line.
_ESCAPED = {code: ascii(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_ESCAPED_BELOW = {code: text for code, text in _ESCAPED.items() if chr(code) not in "\t\n"}


class TextFormatter(logging.Formatter):
    """``2026-01-31T23:59:59Z WARNING sources: door: lost``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback, where there is one, below it."""
        message = record.getMessage().translate(_ESCAPED)
        line = f"{_time(record)} {record.levelname} {_part(record)}: {message}"
        if not record.exc_info:
            return line
        return f"{line}\n{self.formatException(record.exc_info).translate(_ESCAPED_BELOW)}"


class JsonFormatter(logging.Formatter):
    """``{"time": ..., "level": ..., "part": ..., "message": ...}`` and what the record adds."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        document: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "part": _part(record),
            "message": record.getMessage(),
            **getattr(record, "figures", {}),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, allow_nan=False)


class _Stderr(logging.StreamHandler[TextIO]):
    """The stderr of the moment: a table that lives at the bottom of a terminal replaces it."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        """The base class sets the one of its construction."""


@contextmanager
def logs_on_stderr(*, as_json: bool, verbose: bool) -> Iterator[None]:
    """Meanwhile what hermes-edge logs, and nothing else, goes to stderr: warnings, or all of it."""
    handler = _Stderr()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logger = logging.getLogger(LOGGER)
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.handlers, logger.level, logger.propagate = before


def _part(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{LOGGER}.")


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
