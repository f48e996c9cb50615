"""Real servers on loopback that can be killed, started again, stopped and throttled."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

FFMPEG: str = imageio_ffmpeg.get_ffmpeg_exe()
LISTEN, ESTABLISHED = "0A", "01"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_up(port: int) -> bool:
    """Whether a server listens, or has its client already: one of a single client listens no more.

    Without connecting, which such a server would take for its client.
    """
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(
        local.endswith(f":{port:04X}") and state in (LISTEN, ESTABLISHED)
        for _, local, _, state, *_ in sockets
    )


class Server:
    """A process that serves one stream at ``url``."""

    def __init__(self, command: Callable[[int], list[str]], url: str) -> None:
        self.port = free_port()
        self.url = url.format(port=self.port)
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command(self.port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while not is_up(self.port):
            assert self._process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


Serve = Callable[..., Server]


@pytest.fixture
def serve_http() -> Iterator[Serve]:
    """MPEG-TS over HTTP by ffmpeg, at ``fps``, sent at ``pace`` times its own speed."""
    servers: list[Server] = []

    def serve(fps: int = 10, pace: float = 1.0) -> Server:
        def command(port: int) -> list[str]:
            source = ["-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={fps}"]
            coded = ["-c:v", "mpeg2video", "-g", "5", "-f", "mpegts", "-flush_packets", "1"]
            listen = ["-listen", "1", f"http://127.0.0.1:{port}/live.ts"]
            return [FFMPEG, "-readrate", str(pace), *source, *coded, *listen]

        servers.append(Server(command, "http://127.0.0.1:{port}/live.ts"))
        servers[-1].start()
        return servers[-1]

    yield serve
    for server in servers:
        server.kill()


RTSP_SERVERS = {
    "gstreamer": ("/usr/bin/python3", "rtsp_gstreamer.py"),
    "rtsp-rs": (sys.executable, "rtsp_rs.py"),
}


@pytest.fixture
def serve_rtsp(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """H.264 over RTSP by the server that the test's parameter names."""
    servers: list[Server] = []
    python, script = RTSP_SERVERS[request.param]
    path = Path(__file__).with_name(script)
    found = (
        Path(python).exists()
        and not subprocess.run([python, str(path), "--check"], capture_output=True).returncode
    )
    if not found:
        pytest.skip(f"{python} {script} --check fails")

    def serve(fps: int = 10, *login: str) -> Server:
        def command(port: int) -> list[str]:
            return [python, str(path), str(port), str(fps), *login]

        user = "{}:{}@".format(*login) if login else ""
        servers.append(Server(command, f"rtsp://{user}127.0.0.1:{{port}}/stream"))
        servers[-1].start()
        return servers[-1]

    yield serve
    for server in servers:
        server.kill()
