"""Log lines for people, or one JSON document each."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

LOGGER = "hermes_edge"


class TextFormatter(logging.Formatter):
    """``2026-01-31T23:59:59Z WARNING sources: door: lost``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback, where there is one, below it."""
        line = f"{_time(record)} {record.levelname} {_part(record)}: {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


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


def set_up_logs(handler: logging.Handler, *, as_json: bool) -> None:
    """Send everything that hermes-edge logs, and nothing else, to one handler."""
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logger = logging.getLogger(LOGGER)
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _part(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{LOGGER}.")


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
