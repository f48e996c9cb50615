"""Silent sources and engine calls that hang."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from hermes_edge.service.watchdog import Watchdog


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_silence_is_told_of_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    silences = {"door": 1.0, "yard": 0.0}
    looks: list[int] = []
    hung: list[float] = []

    def look() -> dict[str, float]:
        looks.append(1)
        return dict(silences)

    def looked_again() -> None:
        seen = len(looks)
        _until(lambda: len(looks) > seen + 2)

    with caplog.at_level(logging.INFO, "hermes_edge"):
        dog = Watchdog(
            look, lambda: 0.0, hung.append, silent_after_s=5, engine_timeout_s=9, every_s=0.001
        )
        looked_again()
        assert caplog.messages == []
        silences["door"] = 6.0
        looked_again()
        silences["door"] = 7.0
        looked_again()
        assert dog.silent == ["door"]
        silences["door"] = 0.5
        looked_again()
        assert dog.silent == []
        silences["yard"] = 8.0
        looked_again()
        del silences["yard"]
        looked_again()
        dog.close()
    assert hung == []
    assert caplog.messages == [
        "door: no frame for 6 s",
        "door: frames again after 7 s",
        "yard: no frame for 8 s",
    ]
    figures = [record.__dict__["figures"] for record in caplog.records]
    assert figures == [{"stream": "door"}, {"stream": "door"}, {"stream": "yard"}]


def test_a_call_did_not_hang_while_the_whole_process_stood_still() -> None:
    """As after SIGSTOP, or a container that was paused: each look may find two periods at most."""
    looks, hung, told = list[int](), list[float](), threading.Event()

    def after_an_hour() -> float:
        looks.append(1)
        return 3600.0

    def on_hang(seconds: float) -> None:
        hung.append(seconds)
        told.set()

    dog = Watchdog(
        dict, after_an_hour, on_hang, silent_after_s=5, engine_timeout_s=0.1, every_s=0.001
    )
    assert told.wait(30)
    dog.close()
    assert len(looks) >= 50
    assert hung == [3600.0]


def test_a_call_that_hangs_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    took_s, hung, told = [8.0], list[float](), threading.Event()

    def on_hang(seconds: float) -> None:
        hung.append(seconds)
        told.set()

    with caplog.at_level(logging.INFO, "hermes_edge"):
        dog = Watchdog(
            dict, lambda: took_s[0], on_hang, silent_after_s=5, engine_timeout_s=9, every_s=0.001
        )
        assert not told.wait(0.05)
        took_s[0] = 9.5
        assert told.wait(30)
        dog.close()
    assert hung == [9.5]
    assert caplog.messages == ["an engine call has taken 10 s, longer than the 9 s allowed"]
