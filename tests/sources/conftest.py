"""RTSP servers on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Serve = Callable[..., Any]

RTSP_SERVERS = {
    "gstreamer": ("/usr/bin/python3", "rtsp_gstreamer.py"),
    "rtsp-rs": (sys.executable, "rtsp_rs.py"),
}


@pytest.fixture
def serve_rtsp(request: pytest.FixtureRequest, new_server: Serve) -> Serve:
    """H.264 over RTSP by the server that the test's parameter names."""
    python, script = RTSP_SERVERS[request.param]
    path = Path(__file__).with_name(script)
    found = (
        Path(python).exists()
        and not subprocess.run([python, str(path), "--check"], capture_output=True).returncode
    )
    if not found:
        pytest.skip(f"{python} {script} --check fails")

    def serve(fps: int = 10, *login: str) -> Any:
        def command(port: int) -> list[str]:
            return [python, str(path), str(port), str(fps), *login]

        user = "{}:{}@".format(*login) if login else ""
        return new_server(command, f"rtsp://{user}127.0.0.1:{{port}}/stream")

    return serve
