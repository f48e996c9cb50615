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


# The hub's address is read when its package is imported: every address needs a process.
ANSWER = """
import sys
from hermes_edge.errors import CheckpointError
from hermes_edge.export.headers import read_headers
from hermes_edge.export.hub import resolve_source
for line in sys.stdin:
    source, what = line.split()
    try:
        if what == "headers":
            headers = read_headers(source)
            print(headers.model_id, headers.config.decoder.layers)
            folder = headers.folder
        else:
            folder, name = resolve_source(source)
            print(name)
        print(*sorted(path.name for path in folder.iterdir()))
    except CheckpointError as error:
        print(error)
    print("done", flush=True)
"""


class Asker:
    """A process with an address of the hub and a cache of its own."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        environment = {k: text for k, text in os.environ.items() if not k.startswith("HF_")}
        cache = str(folder / "cache")
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": cache, "NO_PROXY": "127.0.0.1"}
        self._errors = folder / "stderr"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", ANSWER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def __call__(self, source: str, what: str = "all") -> str:
        """What the source resolves to, or the error; nothing else is written to the terminal."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(f"{source} {what}\n")
        stdin.flush()
        answer = ""
        for line in stdout:
            if line == "done\n":
                break
            answer += line
        assert self._errors.read_text() == ""
        return answer.strip()

    def end(self) -> None:
        self._process.communicate()
        assert (self._process.returncode, self._errors.read_text()) == (0, "")


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """Asks the hub of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    asker = Asker(f"http://127.0.0.1:{server.server_port}", tmp_path_factory.mktemp("hub"))
    yield asker
    server.shutdown()
    thread.join()
    server.server_close()
    asker.end()


def test_fetches_what_is_needed_and_no_more(ask: Asker) -> None:
    assert ask("org/good") == "org/good\nchat_template.jinja config.json model.safetensors"


def test_headers_come_without_the_weights(ask: Asker) -> None:
    Hub.sent_weights = 0
    lines = ask("org/tiny", "headers").splitlines()
    assert lines[0] == "org/tiny 10"
    assert lines[1].split() == [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer_config.json",
    ]
    whole = len(REPOSITORIES["org/tiny"]["model.safetensors"])
    assert 8 < Hub.sent_weights < whole / 10


def test_headers_of_another_model(ask: Asker) -> None:
    message = ask("org/other", "headers")
    assert message.startswith("30 tensors have another shape than config.json says: required ")


def test_headers_without_safetensors(ask: Asker) -> None:
    assert ask("org/pickled", "headers").startswith(
        "the hub's checkpoint org/pickled has no weights that can be read: "
        "required model.safetensors or model.safetensors.index.json, found "
    )


def test_gated(ask: Asker) -> None:
    assert ask("org/gated") == (
        "the hub's checkpoint org/gated is gated. "
        "Accept its licence on the hub, then log in with: hf auth login"
    )


def test_unknown(ask: Asker) -> None:
    assert ask("org/unknown") == (
        "the hub's checkpoint org/unknown does not exist or is private, and there is no folder of "
        "that name either. Check the spelling, or log in with: hf auth login"
    )


def cannot_be_fetched(source: str, message: str) -> bool:
    return message.startswith(
        f"the hub's checkpoint {source} cannot be fetched, and there is no folder of that name: "
        "found "
    ) and message.endswith("Check the network, or download it elsewhere and give the folder.")


def test_refused(ask: Asker) -> None:
    assert cannot_be_fetched("org/broken", ask("org/broken"))


def test_no_network(tmp_path: Path) -> None:
    # Port 9 (discard) has no listener: the connection is refused at once.
    asker = Asker("http://127.0.0.1:9", tmp_path)
    assert cannot_be_fetched("org/good", asker("org/good"))
    asker.end()


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
