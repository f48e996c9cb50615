"""Log lines, as text and as JSON."""

from __future__ import annotations

import json
import logging
import re

import pytest

from hermes_edge.service.logs import LOGGER, logs_on_stderr


def _log() -> None:
    log = logging.getLogger("hermes_edge.sources")
    log.info("door: opened", extra={"figures": {"streams": 2}})
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.exception("door: %s", "lost")
    logging.getLogger("another.library").error("not ours")


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_on_stderr(as_json=False, verbose=True):
        _log()
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO sources: door: opened", lines[0])
    assert lines[1].endswith("Z ERROR sources: door: lost")
    assert lines[-1] == "ZeroDivisionError"
    assert "not ours" not in lines


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_on_stderr(as_json=True, verbose=True):
        _log()
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.pop("time"))
    assert first == {"level": "info", "part": "sources", "message": "door: opened", "streams": 2}
    assert (second["level"], second["message"]) == ("error", "door: lost")
    assert second["traceback"].endswith("ZeroDivisionError")


def test_quiet_where_nothing_runs_on(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_on_stderr(as_json=False, verbose=False):
        logging.getLogger("hermes_edge.sources").info("door: opened")
    assert capsys.readouterr().err == ""


def test_the_logger_is_afterwards_as_it_was() -> None:
    logger = logging.getLogger(LOGGER)
    before = (logger.handlers, logger.level, logger.propagate)
    with pytest.raises(ZeroDivisionError), logs_on_stderr(as_json=False, verbose=True):
        assert not logger.propagate
        raise ZeroDivisionError
    assert (logger.handlers, logger.level, logger.propagate) == before


def test_a_message_is_one_line_and_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    forged = "x\x1b[2J\r\n2026-01-01T00:00:00Z INFO service: door: opened\x9b\u2028"
    log = logging.getLogger("hermes_edge.sources")
    with logs_on_stderr(as_json=False, verbose=True):
        log.error("door: %s", forged)
        try:
            raise ValueError("odd\x1b[31m")
        except ValueError:
            log.exception("failed")
    first, *below = capsys.readouterr().err.split("\n")
    assert first.endswith(
        r"ERROR sources: door: x\x1b[2J\r\n2026-01-01T00:00:00Z INFO service: door: opened"
        r"\x9b\u2028"
    )
    # A traceback keeps its lines.
    assert below[-2:] == [r"ValueError: odd\x1b[31m", ""] and len(below) > 4
