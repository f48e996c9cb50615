"""Arguments of another type or out of range, at every public door: one clear error, no raw one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.errors import HermesEdgeError, SettingsError, SourceError
from hermes_edge.runtime import ProbeTokens, Runtime, SamplingParams, Session
from hermes_edge.service.service import Service
from hermes_edge.snapshots import Saver, SnapshotFile, SnapshotFolder

Door = Callable[[Any], object]

FRAME = np.zeros((32, 32, 3), dtype=np.uint8)
SHORT = SamplingParams(max_new_tokens=2)
# Of every kind that a slip may be; hardly one of them is right anywhere.
HUGE, ZERO, BELOW = 10**400, "a\0b", -1.5
SLIPS: list[Any] = [BELOW, math.nan, b"x", [1, "a"], {"a": 1}, ("x",), object(), HUGE, ZERO]
# Doors that take one of these after all: it is text, or a bound without a largest value.
TAKEN: dict[str, list[Any]] = {
    "captured_s": [BELOW],
    "session workspace_bytes": [HUGE],
    "saver keep": [HUGE],
    "prune": [HUGE],
    **{name: [ZERO] for name in ("ask", "prefix_ids", "session name")},
}


@pytest.fixture
def session(runtime: Runtime) -> Session:
    made = runtime.session(budget_tokens=128, chunk_frames=4, reserve_tokens=256)
    made.feed(FRAME, 1.0)
    return made


@pytest.fixture
def doors(runtime: Runtime, session: Session, tmp_path: Path) -> dict[str, Door]:
    """Public methods by name, each to be called with one argument that is wrong."""
    saved = session.save(tmp_path / "door-20261125T120000.000Z.safetensors").path

    def service(**wrong: Any) -> Service:
        given = {"runtime": runtime, "streams": [], "on_hang": print}
        times = {"silent_after_s": 60, "engine_timeout_s": 60}
        return Service(**{**given, **times, **wrong})

    def of_session(name: str) -> Door:
        return lambda wrong: runtime.session(**{name: wrong})

    def of_restore(name: str) -> Door:
        return lambda wrong: runtime.restore(saved, **{name: wrong})

    options = "name budget_tokens budget_bytes policy scoring reindexing smoothing chunk_frames"
    more = "reserve_tokens workspace_bytes prefix_ids probes"
    wanted = "budget_bytes prefix_ids system probes"
    return {
        **{f"session {name}": of_session(name) for name in f"{options} {more}".split()},
        **{f"restore {name}": of_restore(name) for name in wanted.split()},
        "load": Runtime.load,
        "restore": runtime.restore,
        "restore stream": lambda wrong: runtime.restore(tmp_path, stream=wrong),
        "encode": runtime.encode,
        "prefix_ids": runtime.prefix_ids,
        "feed": lambda wrong: session.feed(wrong, 2.0),
        "feed at": lambda wrong: session.feed(FRAME, wrong),
        "captured_s": lambda wrong: session.feed(FRAME, 2.0, wrong),
        "feed_tokens": lambda wrong: session.feed_tokens(wrong, 2.0),
        "feed_tokens at": lambda wrong: session.feed_tokens(np.zeros((16, 64)), wrong),
        "ask": lambda wrong: session.ask(wrong, SHORT),
        "ask params": lambda wrong: session.ask("What?", wrong),
        "ask params, streamed": lambda wrong: [*session.ask("What?", wrong, stream=True)],
        "save": session.save,
        "save stream": lambda wrong: session.save(saved, stream=wrong),
        "saver session": lambda wrong: Saver(wrong, tmp_path, every_s=1),
        "saver folder": lambda wrong: Saver(session, wrong, every_s=1),
        "saver every_s": lambda wrong: Saver(session, tmp_path, every_s=wrong),
        "saver keep": lambda wrong: Saver(session, tmp_path, every_s=1, keep=wrong).close(),
        "saver stream": lambda wrong: Saver(session, tmp_path, every_s=1, stream=wrong),
        "snapshot file": SnapshotFile,
        "prune": SnapshotFolder(tmp_path, "door").prune,
        "service runtime": lambda wrong: service(runtime=wrong),
        "service streams": lambda wrong: service(streams=[wrong]),
        "service on_hang": lambda wrong: service(on_hang=wrong),
        "service silent_after_s": lambda wrong: service(silent_after_s=wrong),
        "service engine_timeout_s": lambda wrong: service(engine_timeout_s=wrong),
        "service stopped": lambda wrong: service().wait(wrong),
        "service look": lambda wrong: service().wait(lambda: True, wrong),
    }


def outcome(door: Door, wrong: Any) -> str:
    """What becomes of a call; "refused" where it is an error of this project."""
    try:
        door(wrong)
    except HermesEdgeError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "taken"


@pytest.mark.parametrize("wrong", SLIPS, ids=lambda wrong: type(wrong).__name__)
def test_no_slip_ends_in_a_raw_error_or_is_taken(doors: dict[str, Door], wrong: Any) -> None:
    outcomes = {name: outcome(door, wrong) for name, door in doors.items()}
    expected = {
        name: "taken" if any(wrong is taken for taken in TAKEN.get(name, ())) else "refused"
        for name in doors
    }
    assert outcomes == expected


@pytest.mark.parametrize(
    ("door", "wrong", "text"),
    [
        ("session probes", 3, "probes is no function: required a function, found 3"),
        ("ask params", 3, "params is of another type: required an instance of SamplingParams, "),
        ("session scoring", "best", "unknown scoring: required forward or embedding, found 'best'"),
        ("session reindexing", "", "unknown reindexing: required lazy or eager, found ''"),
        ("session smoothing", "x", "unknown smoothing: required recursive or one-step, found 'x'"),
        ("restore", 3, "path is not text: required text, found 3"),
        ("restore", "a\0b", r"path holds a zero byte: required a path, found 'a\x00b'"),
        ("save", None, "path is not text: required text, found None"),
        (
            "restore budget_bytes",
            "2GiB",
            "budget_bytes is not a whole number: required a whole number, found '2GiB'",
        ),
        ("restore system", 3, "system is not text: required text, found 3"),
        (
            "restore prefix_ids",
            "abc",
            "prefix_ids are not token ids: required a list of whole numbers, found 'abc'",
        ),
        ("saver session", 3, "session.save is no function: required a function, found None"),
        ("saver folder", 3, "folder is not text: required text, found 3"),
        ("saver every_s", "60", "save-every is not a number: required a number, above 0 s, "),
        ("saver keep", 1.5, "keep is not a whole number: required a whole number, at least 1, "),
        ("saver stream", 3, "the stream's name cannot be used in a file name: required 1 to 100 "),
        ("prune", 0, "keep is out of range: required at least 1, found 0"),
        ("service runtime", 3, "runtime is of another type: required an instance of Runtime, "),
        ("service streams", 3, "a stream is of another type: required an instance of Stream, "),
        ("service on_hang", 3, "on_hang is no function: required a function, found 3"),
        ("service stopped", 3, "stopped is no function: required a function, found 3"),
        ("service look", 3, "look is no function: required a function, found 3"),
        (
            "service engine_timeout_s",
            0,
            "engine_timeout_s is out of range: required above 0 s, found 0.0",
        ),
    ],
)
def test_what_is_said(doors: dict[str, Door], door: str, wrong: Any, text: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(text)):
        doors[door](wrong)


@pytest.mark.parametrize("wrong", ["now", math.nan, math.inf])
def test_a_time_of_capture_that_is_none_leaves_the_session_as_it_was(
    session: Session, wrong: Any
) -> None:
    before = session.waiting_since_s
    with pytest.raises(SourceError) as caught:
        session.feed(FRAME, 2.0, wrong)
    assert str(caught.value) == (
        "the time of a capture is not a number: required seconds of time.monotonic(), "
        f"found {wrong!r}"
    )
    assert (session.memory().frames_seen, session.waiting_since_s) == (1, before)
    session.feed(FRAME, 2.0)
    assert session.ask("What?", SHORT).video_time_s == 2.0


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (3, "what probes() gives is of another type: required an instance of ProbeTokens, found 3"),
        ([("a",), (1,)], "the working probe's tokens are not token ids: required a list of "),
        ([(1,), (1.5,)], "the long-term probe's tokens are not token ids: required a list of "),
    ],
)
def test_probes_that_are_none(runtime: Runtime, given: Any, text: str) -> None:
    probes = ProbeTokens(*given) if isinstance(given, list) else given
    session = runtime.session(
        budget_tokens=64, chunk_frames=4, reserve_tokens=256, probes=lambda _: probes
    )
    with pytest.raises(SettingsError, match=re.escape(text)):
        for second in range(16):
            session.feed(FRAME, second)


def test_a_prefix_of_its_own_is_compared_as_ids(runtime: Runtime, tmp_path: Path) -> None:
    options: dict[str, Any] = {"budget_tokens": 64, "chunk_frames": 4, "reserve_tokens": 64}
    session = runtime.session(**options, prefix_ids=(1, 2, 3))
    saved = session.save(tmp_path / "saved").path
    for same in ([1, 2, 3], np.array([1, 2, 3])):
        assert runtime.restore(saved, prefix_ids=same).memory().frames_seen == 0
    with pytest.raises(SettingsError, match=r"required prefix_ids \(1, 2, 3\), found prefix_ids"):
        runtime.restore(saved, prefix_ids=[1, 2])
