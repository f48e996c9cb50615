"""What several test folders share: bundles, real servers, and why tests of a GPU are skipped."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

from hermes_edge.engines.backends import open_backend
from hermes_edge.engines.bundle import Bundle
from hermes_edge.errors import HermesEdgeError

RANDOM_BUNDLE = Path(__file__).parent / "random-bundle"

FFMPEG: str = imageio_ffmpeg.get_ffmpeg_exe()
LISTEN, ESTABLISHED = "0A", "01"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs so, and the processes that are interrupted here inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """A folder that whichever process needs it first makes, for all that share a test run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make(shared / f"{name}.part")
            (shared / f"{name}.part").rename(folder)
    return folder


@pytest.fixture(scope="session")
def random_bundle() -> Path:
    """A small bundle of random weights, norms too: 10 layers, E 64, 16 tokens a frame."""
    return RANDOM_BUNDLE


@pytest.fixture(scope="session")
def small_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ten layers whose rows are 256 bytes in fp32: TensorRT could bind them."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from hermes_edge.export.random_checkpoint import randomise

    config = Qwen2Config(
        vocab_size=96,
        hidden_size=128,
        intermediate_size=80,
        num_hidden_layers=10,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=0,
    )
    folder = tmp_path_factory.mktemp("checkpoints") / "small-decoder"
    model = Qwen2ForCausalLM(config)
    randomise(model, seed=7)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def static_bundle(small_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small decoder for static decoding, by the verb; frames of 8 tokens, chunks of two."""
    from typer.testing import CliRunner

    from hermes_edge.cli.app import app

    def export(target: Path) -> None:
        options = "--static-decode --tokens-per-frame 8 --chunk-frames 2"
        args = ["export", str(small_decoder), "-o", str(target), *options.split()]
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 0, result.stderr

    return made_once(tmp_path_factory, "static-bundle", export)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a GPU are skipped where there is none; files with slow tests come first.

    So no process is left alone with one of them at the end.
    """
    skip_without_gpu(items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def skip_without_gpu(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` run where ONNX Runtime computes on a GPU, and say why elsewhere."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    try:
        backend = open_backend("cuda:0", "onnxruntime")
        backend.engine(Bundle.open(RANDOM_BUNDLE), "compact")
    except HermesEdgeError as error:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=str(error)))


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


NewServer = Callable[[Callable[[int], list[str]], str], Server]


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    """A server that runs, from its command for a port and its address; killed at the end."""
    servers: list[Server] = []

    def start(command: Callable[[int], list[str]], url: str) -> Server:
        servers.append(Server(command, url))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def serve_http(new_server: NewServer) -> Callable[..., Server]:
    """MPEG-TS over HTTP by ffmpeg, at ``fps``, sent at ``pace`` times its own speed."""

    def serve(fps: int = 10, pace: float = 1.0) -> Server:
        def command(port: int) -> list[str]:
            source = ["-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={fps}"]
            coded = ["-c:v", "mpeg2video", "-g", "5", "-f", "mpegts", "-flush_packets", "1"]
            listen = ["-listen", "1", f"http://127.0.0.1:{port}/live.ts"]
            return [FFMPEG, "-readrate", str(pace), *source, *coded, *listen]

        return new_server(command, "http://127.0.0.1:{port}/live.ts")

    return serve
