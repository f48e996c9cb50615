"""A stream that runs on under bad conditions: does its last tenth look like its first?

    python benchmarks/soak.py --frames 100000 --json soak.json --plot soak.png

``hermes-edge run`` watches an HTTP stream of ffmpeg, in a process of its own, through the model in
the box. Once a minute the server is killed and started again, stopped for two seconds, and
throttled to a third of its pace. Every three seconds a question is asked, every ten the memory is
saved. What is compared comes from the process's metrics, once a second, and from its answers. A
yardstick beside it, fixed work in CPU time, tells a slower machine from a slower process.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import IO, Annotated

import imageio_ffmpeg
import numpy as np
import typer
from prometheus_client.parser import text_string_to_metric_families

from hermes_edge.bench.machine import describe_machine
from hermes_edge.shipped import TINY_BUNDLE

QUESTIONS = ("What is it now?", "What came first?", "Did a ring appear?")
ASK_EVERY_S, SAVE_EVERY, SAMPLE_EVERY_S = 3.0, "10s", 1.0

Sample = dict[str, float]


class Server:
    """ffmpeg, which serves one client; dies and comes back as it is told."""

    def __init__(self, port: int, fps: int) -> None:
        self.url = f"http://127.0.0.1:{port}/live.ts"
        self._fps = fps
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, pace: float = 1.0) -> None:
        """Serve at ``pace`` times its own speed, whatever was before."""
        self.kill()
        picture = ["-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={self._fps}"]
        coded = ["-c:v", "mpeg2video", "-g", "5", "-f", "mpegts", "-flush_packets", "1"]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "quiet", "-readrate", str(pace)]
        self._process = subprocess.Popen([*command, *picture, *coded, "-listen", "1", self.url])

    def signal(self, number: signal.Signals) -> None:
        """Stop it, or let it go on."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """The source is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def main(
    frames: Annotated[int, typer.Option(help="Frames to be encoded.")] = 100_000,
    fps: Annotated[int, typer.Option(help="Of the source, and of the memory.")] = 60,
    cycle: Annotated[float, typer.Option(help="Seconds from trouble to trouble.")] = 60.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all samples here.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them here.")] = None,
) -> None:
    """Run until FRAMES are encoded, and compare the last tenth with the first."""
    camera, metrics = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(camera, fps)
        server.start()
        process = _watch(server.url, metrics, fps, Path(folder))
        try:
            samples, answers = _soak(server, process, metrics, frames, cycle)
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=60)
        finally:
            process.kill()
            server.kill()
        saved = len([*Path(folder).iterdir()])
    document = {
        "settings": {"frames": frames, "fps": fps, "cycle_s": cycle},
        "machine": asdict(describe_machine()),
        "exit_code": code,
        "snapshots_left": saved,
        "totals": {
            k: v
            for k, v in samples[-1].items()
            if k not in ("age_s", "resident_bytes", "yardstick_ms")
        },
        "tenths": [_tenth(samples, answers, frames, tenth) for tenth in range(10)],
        "samples": samples,
        "answers": answers,
    }
    if json_file is not None:
        json_file.write_text(json.dumps(document) + "\n", encoding="utf-8")
    if plot is not None:
        _draw(plot, samples, answers)
    told = {key: document[key] for key in ("exit_code", "snapshots_left", "totals", "tenths")}
    print(json.dumps(told))


def _watch(url: str, metrics: int, fps: int, folder: Path) -> subprocess.Popen[str]:
    options = (
        f"--bundle {TINY_BUNDLE} --budget 256 --chunk-frames 4 --reserve-tokens 96 --max-tokens 4 "
        f"--fps {fps} --stdin --json --metrics-port {metrics} --snapshots {folder} "
        f"--save-every {SAVE_EVERY} --keep 3"
    )
    main = "from hermes_edge.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", main, "run", f"camera={url}", *options.split()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _soak(
    server: Server, process: subprocess.Popen[str], metrics: int, frames: int, cycle_s: float
) -> tuple[list[Sample], list[Sample]]:
    samples: list[Sample] = []
    answers: list[Sample] = []
    done = threading.Event()
    began = time.monotonic()
    assert process.stdin is not None
    assert process.stdout is not None
    for work in (
        lambda: _trouble(server, done, cycle_s),
        lambda: _ask(process.stdin, done),
        lambda: _listen(process.stdout, answers, began),
    ):
        threading.Thread(target=work, daemon=True).start()
    while not samples or samples[-1]["used"] < frames:
        time.sleep(SAMPLE_EVERY_S)
        if process.poll() is not None:
            raise SystemExit(f"hermes-edge has ended with {process.returncode}")
        if (sample := _scrape(metrics)) is not None:
            at_s = time.monotonic() - began
            samples.append({"at_s": at_s, "yardstick_ms": _yardstick_ms(), **sample})
    done.set()
    return samples, answers


_ROWS = np.ones((2048, 2048), np.float32)  # 16 MiB, as much as the model's weights
_TILE = np.ones((64, 64), np.float32)


def _yardstick_ms() -> float:
    """CPU time of what a decoder does, reading weights and multiplying, always the same amount."""
    began = time.thread_time()
    _ROWS.sum()
    for _ in range(100):
        _TILE @ _TILE
    return 1e3 * (time.thread_time() - began)


def _trouble(server: Server, done: threading.Event, cycle_s: float) -> None:
    """Loss, stall and throttling, at the same places of every cycle."""
    steps: tuple[tuple[float, Callable[[], None]], ...] = (
        (0.2, server.kill),
        (0.05, server.start),
        (0.2, lambda: server.signal(signal.SIGSTOP)),
        (0.04, lambda: server.signal(signal.SIGCONT)),
        (0.2, lambda: server.start(pace=0.3)),
        (0.1, server.start),
        (0.21, lambda: None),
    )
    while True:
        for share, step in steps:
            if done.wait(share * cycle_s):
                return
            step()


def _ask(stdin: IO[str] | None, done: threading.Event) -> None:
    assert stdin is not None
    asked = 0
    while not done.wait(ASK_EVERY_S):
        stdin.write(QUESTIONS[asked % len(QUESTIONS)] + "\n")
        stdin.flush()
        asked += 1


def _listen(stdout: IO[str] | None, answers: list[Sample], began: float) -> None:
    assert stdout is not None
    for line in stdout:
        document = json.loads(line)
        if document["type"] == "answer":
            at_s = time.monotonic() - began
            answers.append(
                {
                    "at_s": at_s,
                    "ttft_ms": document["ttft_ms"],
                    "wait_ms": document["waited_ms"] + document["catch_up_ms"],
                }
            )


def _scrape(port: int) -> Sample | None:
    """What is compared, of one moment; None before the process serves it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    except urllib.error.URLError:
        return None
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            label = sample.labels.get("outcome") or sample.labels.get("stage") or ""
            found[sample.name.removeprefix("hermes_edge_") + (f"/{label}" if label else "")] = (
                sample.value
            )
    if "frame_age_seconds" not in found:
        return None
    stages = ("vision", "encode", "score", "compact")
    return {
        "in": found["frames_total/in"],
        "sampled": found["frames_total/sampled"],
        "used": found["frames_total/used"],
        "dropped": found["frames_total/dropped"],
        "reconnects": found["reconnects_total"],
        "saves": found["save_seconds_count"],
        "save_s": found["save_seconds_sum"],
        "pause_s": found["save_pause_seconds_sum"],
        "encode_s": sum(found[f"stage_seconds_sum/{stage}"] for stage in stages),
        "age_s": found["frame_age_seconds"],
        "resident_bytes": found["resident_bytes"],
    }


def _tenth(samples: list[Sample], answers: list[Sample], frames: int, tenth: int) -> Sample:
    """Figures of the frames from ``tenth`` tenths on."""
    edges = (frames * tenth / 10, frames * (tenth + 1) / 10)
    part = [sample for sample in samples if edges[0] <= sample["used"] <= edges[1]]
    if len(part) < 2:
        return {"samples": len(part)}
    asked = [a for a in answers if part[0]["at_s"] <= a["at_s"] <= part[-1]["at_s"]]
    sampled = part[-1]["sampled"] - part[0]["sampled"]
    saves = part[-1]["saves"] - part[0]["saves"]
    return {
        "samples": len(part),
        "resident_mib": float(np.mean([s["resident_bytes"] for s in part])) / (1 << 20),
        "dropped_share": (part[-1]["dropped"] - part[0]["dropped"]) / max(sampled, 1),
        "reconnects": part[-1]["reconnects"] - part[0]["reconnects"],
        "save_ms": 1e3 * (part[-1]["save_s"] - part[0]["save_s"]) / max(saves, 1),
        "pause_ms": 1e3 * (part[-1]["pause_s"] - part[0]["pause_s"]) / max(saves, 1),
        **_quantiles("age_ms", [1e3 * s["age_s"] for s in part]),
        **_quantiles("frame_ms", [ms for _, ms in _frame_ms(part)]),
        **_quantiles("yardstick_ms", [s["yardstick_ms"] for s in part]),
        **_quantiles("ttft_ms", [a["ttft_ms"] for a in asked]),
    }


def _frame_ms(samples: list[Sample]) -> list[tuple[float, float]]:
    """When, and what a frame took in the second before, where there was one."""
    return [
        (b["at_s"], 1e3 * (b["encode_s"] - a["encode_s"]) / (b["used"] - a["used"]))
        for a, b in pairwise(samples)
        if b["used"] > a["used"]
    ]


def _quantiles(name: str, values: list[float]) -> Sample:
    if not values:
        return {}
    p50, p99 = np.percentile(values, [50, 99])
    return {f"{name}_p50": float(p50), f"{name}_p99": float(p99)}


def _draw(path: Path, samples: list[Sample], answers: list[Sample]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    def minutes(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
        return [at_s / 60 for at_s, _ in points], [value for _, value in points]

    def of(key: str, unit: float = 1.0) -> list[tuple[float, float]]:
        return [(s["at_s"], s[key] / unit) for s in samples]

    shares = [(s["at_s"], 100 * s["dropped"] / max(s["sampled"], 1)) for s in samples]
    lines = (
        ("resident, MiB", of("resident_bytes", 1 << 20), "-"),
        ("newest frame, s ago", of("age_s"), "-"),
        ("dropped so far, %", shares, "-"),
        ("frame, ms", _frame_ms(samples), "-"),
        ("yardstick, ms", of("yardstick_ms"), "-"),
        ("TTFT, ms", [(a["at_s"], a["ttft_ms"]) for a in answers], "."),
    )
    figure, axes = pyplot.subplots(len(lines), 1, figsize=(9, 11), sharex=True)
    for axis, (label, points, style) in zip(axes, lines, strict=True):
        axis.plot(*minutes(points), style, linewidth=0.6, markersize=2)
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.1 * max([1e-3, *(value for _, value in points)]))
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    typer.run(main)
