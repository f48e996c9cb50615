"""What is logged of a source: by its stream's name, where it has one."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from hermes_edge.service.logs import JsonFormatter
from hermes_edge.sources import (
    Capture,
    GrabbedFrame,
    Source,
    SourceCounts,
    capture,
    open_source,
    parse_address,
)

if TYPE_CHECKING:
    from tests.sources.conftest import Serve

PATIENCE_S = 20.0
# Port 1 is closed on this machine.
RECORDER = "http://user:s3cret@127.0.0.1:1/short?channel="


def documents(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def wait_for(text: str, caplog: pytest.LogCaptureFixture) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not any(text in message for message in caplog.messages):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_two_channels_of_a_recorder_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hermes_edge.sources")
    names = [f"nvr{channel}" for channel in (2, 3)]
    for name in names:
        address = parse_address(f"{name}={RECORDER}{name[-1]}")
        with Capture(address.open(insists=True)) as reader:
            wait_for(f"{name}: reconnecting in ", caplog)
            assert reader._thread.name == f"capture {name}"
    told = documents(caplog)
    for name in names:
        own = [document["message"] for document in told if document["stream"] == name]
        assert own[0].startswith(
            f"{name}: not there yet: http://***@127.0.0.1:1/short?*** gives no video: required "
        )
        assert all(message.startswith(f"{name}: ") for message in own)
    assert {document["stream"] for document in told} == {*names}
    assert "s3cret" not in caplog.text


def test_every_line_of_a_live_stream_begins_with_its_name(
    serve_http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hermes_edge.sources")
    server = serve_http()
    with Capture(open_source(f"door={server.url}")) as reader:
        assert reader.next_frame(PATIENCE_S) is not None
        server.kill()
        wait_for(": lost: ", caplog)
        server.start()
        wait_for(": back after ", caplog)
    told = documents(caplog)
    assert told[0]["message"] == f"door: opened {server.url}"
    words = [document["message"].split()[:2] for document in told]
    assert {word for _, word in words} >= {"opened", "lost:", "reconnecting", "back"}
    assert {name for name, _ in words} == {"door:"}
    assert {document["stream"] for document in told} == {"door"}


def test_a_stream_without_a_name_is_told_of_by_its_address(
    serve_http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hermes_edge.sources")
    url = serve_http().url
    with open_source(url) as source:
        next(source.grabs())
    (told,) = documents(caplog)
    assert (told["message"], "stream" in told) == (f"{url}: opened", False)
    # Its address, opened as a service does, gives it the name that the service has for it.
    assert parse_address(url).open().label == "127.0.0.1"


def test_the_name_of_a_folder_of_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4), np.uint8))
    (tmp_path / "2.png").write_bytes(b"no image")
    assert len(list(open_source(f"clips={tmp_path}"))) == 1
    (told,) = documents(caplog)
    assert told["stream"] == "clips"
    assert told["message"].startswith("clips: an image is skipped: cannot read the image ")


class Hung(Source):
    """Gives nothing, and does not end when it is closed, but when the test says so."""

    fps, ended_early, live = None, None, True

    def __init__(self) -> None:
        self.name, self.counts, self.over = "100 %d", SourceCounts(), threading.Event()

    def grabs(self) -> Generator[GrabbedFrame, None, None]:
        self.over.wait(PATIENCE_S)
        yield from ()

    def close(self) -> None:
        pass


@pytest.mark.parametrize("stream", [None, "door"])
def test_the_line_of_a_capture_that_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: str | None
) -> None:
    monkeypatch.setattr(capture, "CLOSE_TIMEOUT_S", 0.01)
    source = Hung()
    source.stream = stream
    Capture(source).close()
    source.over.set()
    (told,) = documents(caplog)
    assert told["message"] == f"{stream or '100 %d'}: hangs, and is left to its time-out"
    assert told.get("stream") == stream
