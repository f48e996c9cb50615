"""Local folders, and a hub that answers from this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hermes_edge.errors import CheckpointError
from hermes_edge.export.hub import resolve_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "chat_template.jinja": b"template",
    "pytorch_model.bin": b"the same weights once more",
}


class Hub(BaseHTTPRequestHandler):
    """Knows one repository, refuses another, and no third."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if self.path.startswith("/api/models/org/good"):
            siblings = [{"rfilename": name} for name in FILES]
            tree = [
                {"type": "file", "path": name, "oid": COMMIT, "size": len(content)}
                for name, content in FILES.items()
            ]
            info = {"id": "org/good", "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(tree if "/tree/" in self.path else info).encode(), {})
        elif self.path.startswith("/org/good/resolve/") and name in FILES:
            self._send(200, FILES[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})
        elif "org/gated" in self.path:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif "org/broken" in self.path:
            self._send(418, b"{}", {"X-Error-Message": "the kettle is on"})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


# The hub's address is read when its package is imported: every question needs a fresh process.
ASK = """
import sys
from hermes_edge.errors import CheckpointError
from hermes_edge.export.hub import resolve_source
try:
    folder, name = resolve_source(sys.argv[1])
    print(name, *sorted(path.name for path in folder.iterdir()))
except CheckpointError as error:
    print(error)
"""


def ask(source: str, endpoint: str, cache: Path) -> str:
    """What the source resolves to, or the error; nothing else may be written to the terminal."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
    result = subprocess.run(
        [sys.executable, "-c", ASK, source], capture_output=True, text=True, env=environment
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def test_fetches_what_is_needed_and_no_more(hub: str, tmp_path: Path) -> None:
    assert ask("org/good", hub, tmp_path) == (
        "org/good chat_template.jinja config.json model.safetensors"
    )


def test_gated(hub: str, tmp_path: Path) -> None:
    assert ask("org/gated", hub, tmp_path) == (
        "the hub's checkpoint org/gated is gated. "
        "Accept its licence on the hub, then log in with: hf auth login"
    )


def test_unknown(hub: str, tmp_path: Path) -> None:
    assert ask("org/unknown", hub, tmp_path) == (
        "the hub's checkpoint org/unknown does not exist or is private, and there is no folder of "
        "that name either. Check the spelling, or log in with: hf auth login"
    )


@pytest.mark.parametrize("source", ["org/broken", "org/good"], ids=["refused", "no network"])
def test_not_fetched(hub: str, tmp_path: Path, source: str) -> None:
    # Port 9 (discard) has no listener: the connection is refused at once.
    endpoint = hub if source == "org/broken" else "http://127.0.0.1:9"
    message = ask(source, endpoint, tmp_path)
    assert message.startswith(
        f"the hub's checkpoint {source} cannot be fetched, and there is no folder of that name: "
        "found "
    )
    assert message.endswith("Check the network, or download it elsewhere and give the folder.")


def test_folder_that_exists_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_source("org/name") == (Path("org/name"), "name")
    assert resolve_source(tmp_path / "org") == (tmp_path / "org", "org")


@pytest.mark.parametrize("source", ["/nowhere/model", "model", "a/b/c", "./org/name", "-x/name"])
def test_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        resolve_source(source)
    assert str(caught.value) == (
        f"there is no folder {Path(source)}: "
        "required a checkpoint folder, or a hub id such as organisation/name"
    )


def test_path_is_never_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="there is no folder org/name: required"):
        resolve_source(Path("org/name"))


def test_file_is_not_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(CheckpointError) as caught:
        resolve_source(file)
    assert str(caught.value) == (
        f"{file} is not a checkpoint folder: required a folder, found a file"
    )
