"""Local folders, and a hub that answers from this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hermes_edge.errors import CheckpointError
from hermes_edge.export.hub import resolve_source
from hermes_edge.shipped import TINY_CHECKPOINT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "chat_template.jinja": b"template",
    "pytorch_model.bin": b"the same weights once more",
}


REPOSITORIES = {
    "org/good": FILES,
    "org/tiny": {path.name: path.read_bytes() for path in TINY_CHECKPOINT.iterdir()},
    "org/other": {
        path.name: path.read_bytes().replace(b'"intermediate_size": 384', b'"intermediate_size": 8')
        for path in TINY_CHECKPOINT.iterdir()
    },
    "org/pickled": {"config.json": (TINY_CHECKPOINT / "config.json").read_bytes()},
}


class Hub(BaseHTTPRequestHandler):
    """Knows some repositories, refuses others, and counts what it sends of weights."""

    sent_weights = 0

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = self.path.partition("?")[0].removeprefix("/api/models").split("/")
        repository, name = "/".join(parts[1:3]), parts[-1]
        files = REPOSITORIES.get(repository, {})
        if self.path.startswith("/api/models/") and files:
            siblings = [{"rfilename": name} for name in files]
            tree = [
                {"type": "file", "path": name, "oid": COMMIT, "size": len(content)}
                for name, content in files.items()
            ]
            info = {"id": repository, "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(tree if "/tree/" in self.path else info).encode(), {})
        elif "/resolve/" in self.path and name in files:
            self._send_file(name, files[name])
        elif files:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
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

    def _send_file(self, name: str, content: bytes) -> None:
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is not None:
            start, last = map(int, wanted.groups())
            headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
            content = content[start : last + 1]
        if name.endswith(".safetensors") and self.command == "GET":
            Hub.sent_weights += len(content)
        self._send(206 if wanted is not None else 200, content, headers)

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
from hermes_edge.export.headers import read_headers
from hermes_edge.export.hub import resolve_source
try:
    if sys.argv[2] == "headers":
        headers = read_headers(sys.argv[1])
        print(headers.model_id, headers.config.decoder.layers)
        folder = headers.folder
    else:
        folder, name = resolve_source(sys.argv[1])
        print(name)
    print(*sorted(path.name for path in folder.iterdir()))
except CheckpointError as error:
    print(error)
"""


def ask(source: str, endpoint: str, cache: Path, what: str = "all") -> str:
    """What the source resolves to, or the error; nothing else may be written to the terminal."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
    result = subprocess.run(
        [sys.executable, "-c", ASK, source, what], capture_output=True, text=True, env=environment
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def test_fetches_what_is_needed_and_no_more(hub: str, tmp_path: Path) -> None:
    assert ask("org/good", hub, tmp_path) == (
        "org/good\nchat_template.jinja config.json model.safetensors"
    )


def test_headers_come_without_the_weights(hub: str, tmp_path: Path) -> None:
    Hub.sent_weights = 0
    lines = ask("org/tiny", hub, tmp_path, "headers").splitlines()
    assert lines[0] == "org/tiny 10"
    assert lines[1].split() == [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer_config.json",
    ]
    whole = len(REPOSITORIES["org/tiny"]["model.safetensors"])
    assert 8 < Hub.sent_weights < whole / 10


def test_headers_of_another_model(hub: str, tmp_path: Path) -> None:
    message = ask("org/other", hub, tmp_path, "headers")
    assert message.startswith("30 tensors have another shape than config.json says: required ")


def test_headers_without_safetensors(hub: str, tmp_path: Path) -> None:
    message = ask("org/pickled", hub, tmp_path, "headers")
    assert message.startswith(
        "the hub's checkpoint org/pickled has no weights that can be read: "
        "required model.safetensors or model.safetensors.index.json, found "
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
