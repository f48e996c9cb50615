"""A password in an address reaches nobody: no message, log, thread name or line on stderr."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from hermes_edge.errors import SourceError
from hermes_edge.sources import Capture, UrlStream, open_source
from hermes_edge.sources.reconnect import Backoff

if TYPE_CHECKING:
    from tests.sources.conftest import Serve

SECRET = "s3cretw0rd"
# Port 1 is closed on this machine.
FAILING = [
    (f"rtsp://user:{SECRET}@127.0.0.1:1/s?t={SECRET}", "127.0.0.1:1/s?***", "Connection refused"),
    (f"http://{SECRET}@127.0.0.1:1/s#{SECRET}", "127.0.0.1:1/s#***", "Connection refused"),
    (f"rtsp://user:{SECRET}@host.invalid/s", "host.invalid/s", "no such host"),
]


@pytest.mark.parametrize(("url", "shown", "found"), FAILING)
def test_the_message_of_a_stream_that_cannot_be_opened(url: str, shown: str, found: str) -> None:
    with Capture(open_source(url)) as capture, pytest.raises(SourceError) as refused:
        capture.next_frame(60)
    assert str(refused.value) == (
        f"{url.split(':')[0]}://***@{shown} gives no video: required a stream within 10 s, "
        f"found {found}. Check address, path, user and password."
    )


def test_the_message_of_a_stream_without_a_host_that_can_be_told() -> None:
    with UrlStream(f"rtsp://user:{SECRET}/s") as source, pytest.raises(SourceError) as refused:
        next(source.grabs())
    assert str(refused.value) == (
        "rtsp://*** gives no video: required a stream within 10 s, "
        "found no host and port that can be read. Check address, path, user and password."
    )


def test_nothing_on_stderr_of_a_process() -> None:
    code = (
        "import sys, logging\n"
        "logging.basicConfig(level=0)\n"
        "from hermes_edge.sources import *\n"
        "for url in sys.argv[1:]:\n"
        "    capture = Capture(open_source(url))\n"
        "    try: capture.next_frame(60)\n"
        "    except Exception as error: print(type(error).__name__)\n"
    )
    command = [sys.executable, "-c", code, *(url for url, _, _ in FAILING)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SourceError"] * 3
    assert done.stderr == ""


def test_a_stream_that_is_lost_and_found(
    serve_http: Serve, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve_http()
    url = server.url.replace("://", f"://user:{SECRET}@") + f"?token={SECRET}"
    source = UrlStream(url, read_timeout_s=1, backoff=Backoff(first_s=0.1, most_s=0.1))
    with Capture(source) as capture:
        assert capture.next_frame(20) is not None
        server.signal(signal.SIGSTOP)
        while capture.next_frame(1.5) is not None:
            pass
        server.kill()
        server.start()
        assert capture.next_frame(20) is not None
        seen = [*caplog.messages, *(thread.name for thread in threading.enumerate())]
        seen += [repr(capture), repr(source), repr(capture.counters()), source.name]
    seen += capfd.readouterr()
    assert sum(" lost: " in text or " back after " in text for text in seen) == 2
    assert any(f"http://***@127.0.0.1:{server.port}/live.ts?***" in text for text in seen)
    assert not any(SECRET in text for text in seen)
