"""``hermes-edge run`` with several streams, snapshots, metrics, live questions and signals."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hermes_edge.cli.streams import Asked, open_streams
from hermes_edge.cli.table import table_of
from hermes_edge.cli.transcript import JsonTranscript
from hermes_edge.errors import BudgetError, SnapshotError
from hermes_edge.runtime import Runtime, SamplingParams
from hermes_edge.service.status import StreamStatus, Times
from hermes_edge.service.stream import Stream
from hermes_edge.settings import load_settings
from hermes_edge.snapshots import SnapshotFile
from hermes_edge.snapshots.folder import newest_first
from hermes_edge.sources import GrabbedFrame, VideoFile, parse_address
from hermes_edge.synthetic import make_stream, write_video

Cli = Callable[..., tuple[int, str, str]]
Spawn = Callable[..., "subprocess.Popen[str]"]
Document = dict[str, Any]

BRIEF = ("--max-tokens", 3, "--chunk-frames", 4, "--threads", 1, "--json", "--fps", 1)


def documents(stdout: str, kind: str) -> list[Document]:
    found = [json.loads(line) for line in stdout.splitlines()]
    return [document for document in found if document["type"] == kind]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three that differ, of twelve seconds each."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [folder / f"{name}.avi" for name in ("door", "yard", "hall")]
    for seed, path in enumerate(paths):
        write_video(path, make_stream(seed, 12), fps=1)
    return paths


def test_streams_answer_together_what_they_answer_alone(
    random_bundle: Path, cli: Cli, videos: list[Path]
) -> None:
    args = ("--bundle", random_bundle, "--budget", 128, "--ask", "0:05 A?", "--ask", "end B?")
    code, stdout, _ = cli("run", *videos, *args, *BRIEF)
    assert code == 0

    def told(answer: Document) -> tuple[Any, ...]:
        keys = ("stream", "question", "video_time_s", "token_ids", "memory_rows")
        return tuple(str(answer[key]) for key in keys)

    together = {told(answer) for answer in documents(stdout, "answer")}
    alone = set()
    for video in videos:
        _, stdout, _ = cli("run", video, *args, *BRIEF)
        alone |= {told(answer) for answer in documents(stdout, "answer")}
    assert together == alone
    assert len(together) == 6


def test_names_and_questions_of_streams(random_bundle: Path, cli: Cli, videos: list[Path]) -> None:
    first, second, _ = videos
    code, stdout, stderr = cli(
        *("run", f"north={first}", second, "--bundle", random_bundle, "--max-tokens", 2),
        *("--ask", "north@0:02 A?", "--ask", "0:03 B?", "--chunk-frames", 4, "--fps", 1),
    )
    assert code == 0
    assert sorted(re.findall(r"^(\w+) \[(\S+)\] (.+)$", stdout, re.M)) == [
        ("north", "0:02", "A?"),
        ("north", "0:03", "B?"),
        ("yard", "0:03", "B?"),
    ]
    assert re.search(r"^north: 4 frames up to 0:03; ", stdout, re.M)
    assert stderr.count("weights of this bundle are random") == 1


def test_a_name_that_is_used_twice(random_bundle: Path, cli: Cli, videos: list[Path]) -> None:
    code, _, stderr = cli("run", videos[1], videos[0], videos[0], "--bundle", random_bundle)
    assert code == 2
    assert stderr == (
        "error: a stream's name is used twice: required names that differ, found door. "
        f"Name them: door-1={videos[0]}\n"
    )


def test_a_question_for_an_unknown_stream(
    random_bundle: Path, cli: Cli, videos: list[Path]
) -> None:
    args = ("run", *videos[:2], "--bundle", random_bundle, "--ask", "attic@0:01 A?")
    code, _, stderr = cli(*args)
    assert code == 2
    assert stderr == (
        "error: a question is for an unknown stream: required door or yard, found 'attic'\n"
    )


def test_names_with_spaces_and_equals_signs(
    random_bundle: Path, cli: Cli, videos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "front door.avi").symlink_to(videos[0])
    (tmp_path / "a=b.avi").symlink_to(videos[1])
    code, stdout, _ = cli(
        *("run", "front door.avi", "a=b.avi", "--bundle", random_bundle, *BRIEF),
        *("--ask", "front door@0:02 A?", "--ask", "a=b@0:03 B?"),
        *("--stream-budget", "front door=64", "--stream-budget", "a=b=128"),
    )
    assert code == 0
    answers = {(told["stream"], told["question"]) for told in documents(stdout, "answer")}
    assert answers == {("front door", "A?"), ("a=b", "B?")}
    budgets = {t["stream"]: t["memory"]["budget_rows"] for t in documents(stdout, "summary")}
    assert budgets == {"front door": 64, "a=b": 128}


@pytest.mark.parametrize(
    ("sources", "ask", "live", "fix"),
    [
        (["cam77"], "end A?", "video77", ""),
        (["door=cam77", "VIDEO"], "door@end A?", "door", ""),
        (["door=cam77", "VIDEO"], "end A?", "door", ", or ask door-1@end alone"),
        (["a=cam77", "b=udp://:9"], "end A?", "a and b", ""),
    ],
)
def test_a_live_stream_has_no_end_to_ask_at(
    random_bundle: Path,
    cli: Cli,
    videos: list[Path],
    sources: list[str],
    ask: str,
    live: str,
    fix: str,
) -> None:
    given = [f"door-1={videos[0]}" if source == "VIDEO" else source for source in sources]
    for more in ([], ["--stdin"]):
        code, stdout, stderr = cli("run", *given, "--bundle", random_bundle, "--ask", ask, *more)
        assert (code, stdout) == (2, "")
        assert stderr == (
            "error: a question is for the end of a live stream, which has none: required a time "
            f"such as 0:12 for {live}, found end. Give a time, or ask with --stdin{fix}\n"
        )


def test_the_stream_that_does_not_fit_is_named(
    random_bundle: Path, cli: Cli, videos: list[Path]
) -> None:
    code, stdout, stderr = cli(
        *("run", *videos, "--bundle", random_bundle, "--budget", 128, "--ask", "end A?"),
        *("--memory-limit", "5MiB", *BRIEF),
    )
    assert (code, stdout) == (7, "")
    assert re.fullmatch(
        r"error: the memory of hall does not fit the limit for all streams: required [\d,]+ bytes "
        r"\(slabs [\d,]+, spare [\d,]+\), found [\d,]+ left of 5,242,880 beside door [\d,]+, "
        r"yard [\d,]+\. .*\n",
        stderr,
    ), stderr


def test_streams_have_budgets_of_their_own(
    random_bundle: Path, cli: Cli, videos: list[Path]
) -> None:
    args = ("run", *videos, "--bundle", random_bundle, "--budget", 128, *BRIEF)
    code, stdout, _ = cli(*args, "--stream-budget", "yard=64", "--stream-budget", "hall=1MiB")
    assert code == 0
    budgets = [told["memory"]["budget_rows"] for told in documents(stdout, "summary")]
    # Ten layers, two heads of 16 in fp32, keys and values: 2,560 bytes a token.
    assert budgets == [128, 64, (1 << 20) // 2560]


class Watched(VideoFile):
    """Knows whether somebody has begun to read it."""

    begun = False

    def grabs(self) -> Generator[GrabbedFrame, None, None]:
        self.begun = True
        return super().grabs()


def test_no_source_is_read_before_all_memories_are_there(
    random_bundle: Path, videos: list[Path]
) -> None:
    """A live one that may lose no frame would not survive the wait."""
    # Room for one.
    runtime = Runtime.load(random_bundle, threads=1, memory_bytes=3 << 20)
    settings = load_settings({"budget": "128", "chunk_frames": 4})
    sources = [(parse_address(str(video)), Watched(video)) for video in videos[:2]]
    asked = Asked([], SamplingParams(), to_the_end=False)

    def opened(count: int) -> list[Stream]:
        return open_streams(sources[:count], {}, runtime, settings, asked, JsonTranscript())

    with pytest.raises(BudgetError, match=r"^the memory of yard does not fit the limit"):
        opened(2)
    assert not any(source.begun for _, source in sources)
    # What was made before it is given back.
    (stream,) = opened(1)
    stream.close()
    assert sources[0][1].begun


@pytest.mark.parametrize("text", ["attic=64", "64", "=64"])
def test_a_budget_of_no_stream(
    random_bundle: Path, cli: Cli, videos: list[Path], text: str
) -> None:
    code, _, stderr = cli("run", *videos[:2], "--bundle", random_bundle, "--stream-budget", text)
    assert (code, stderr) == (
        2,
        f"error: a budget is of no stream: required NAME=BUDGET, NAME door or yard, "
        f"found '{text}'\n",
    )
    code, _, stderr = cli(
        "run", *videos[:2], "--bundle", random_bundle, "--stream-budget", "door=x"
    )
    assert (code, stderr.startswith("error: unknown budget: required tokens")) == (2, True)


def test_a_stream_without_questions_runs_to_its_end(
    random_bundle: Path, cli: Cli, videos: list[Path]
) -> None:
    code, stdout, _ = cli("run", videos[0], "--bundle", random_bundle, *BRIEF)
    (summary,) = documents(stdout, "summary")
    assert (code, summary["memory"]["frames_seen"], summary["unanswered"]) == (0, 12, 0)
    assert summary["frames"]["used"] == 12


def test_a_stream_goes_on_where_it_was_saved(
    random_bundle: Path, cli: Cli, videos: list[Path], tmp_path: Path
) -> None:
    folder, args = tmp_path / "saved", ("--bundle", random_bundle, "--budget", 128, *BRIEF)
    _, unbroken, _ = cli("run", videos[0], *args, "--ask", "0:05 A?", "--ask", "end B?")
    kept = ("--snapshots", folder, "--save-every", "1h")
    code, first, stderr = cli("run", videos[0], *args, *kept, "--ask", "0:05 A?")
    assert (code, [path.suffix for path in folder.iterdir()]) == (0, [".safetensors"])
    assert "goes on from" not in stderr
    code, rest, stderr = cli("run", videos[0], *args, *kept, "--ask", "end B?")
    assert code == 0
    assert re.search(
        r"INFO service: door: goes on from door-\S+\.safetensors, 6 frames until 5\.0 s$",
        stderr,
        re.M,
    )

    def told(*texts: str) -> list[tuple[object, ...]]:
        answers = [answer for text in texts for answer in documents(text, "answer")]
        return [(a["question"], a["token_ids"], a["memory_rows"]) for a in answers]

    assert told(first, rest) == told(unbroken)
    assert len([*folder.iterdir()]) == 2


def test_settings_that_contradict_the_snapshot_are_refused(
    random_bundle: Path, cli: Cli, videos: list[Path], tmp_path: Path
) -> None:
    args = ("run", videos[0], "--bundle", random_bundle, "--snapshots", tmp_path / "saved", *BRIEF)
    assert cli(*args, "--budget", 128, "--ask", "0:01 A?")[0] == 0
    code, _, stderr = cli(*args, "--budget", 256, "--ask", "end A?")
    assert code == 2
    assert "was saved with other settings: required budget_tokens 128, found" in stderr


def test_a_port_that_is_taken(random_bundle: Path, cli: Cli, videos: list[Path]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        args = ("run", videos[0], "--bundle", random_bundle, "--metrics-port", port, *BRIEF)
        code, stdout, stderr = cli(*args)
    assert (code, stdout) == (2, "")
    assert "error: metrics cannot be served: required a free port of this machine, " in stderr
    assert f"found 127.0.0.1:{port}: " in stderr


def test_questions_come_from_stdin(
    random_bundle: Path, spawn: Spawn, videos: list[Path], tmp_path: Path
) -> None:
    frames = tmp_path / "long @ night.avi"
    write_video(frames, make_stream(5, 3000), fps=10)
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from hermes_edge.cli import main; main()", "run"),
            *(str(frames), str(videos[0]), "--bundle", str(random_bundle), "--stdin"),
            *map(str, BRIEF[:-1]),
            "10",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    time.sleep(3)
    login = "rtsp://admin:s3cr3t@10.0.0.7/x"
    process.stdin.write(f"long @ night@ What is it?\nattic@ Who?\n{login}@ Who?\n\nAnd now?\n")
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert [(a["stream"], a["question"]) for a in answers] == [
        ("long @ night", "What is it?"),
        ("long @ night", "And now?"),
        ("door", "And now?"),
    ]
    process.send_signal(signal.SIGTERM)
    rest, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    unknown = "warning: a question is for an unknown stream: required long @ night or door, found "
    assert f"{unknown}'attic'\n{unknown}'rtsp://***'\n" in stderr
    names = [summary["stream"] for summary in documents(rest, "summary")]
    assert names == ["long @ night", "door"]


def saved_frames(folder: Path) -> int:
    """Frames of the newest snapshot."""
    for path in newest_first(folder, None) if folder.is_dir() else []:
        # One that is pruned meanwhile.
        with contextlib.suppress(SnapshotError), SnapshotFile(path) as file:
            return file.record.frames + file.record.waiting_frames
    return 0


def test_a_live_stream_is_ended_by_a_signal_and_goes_on_when_started_again(
    random_bundle: Path, spawn: Spawn, serve_http: Callable[..., Any], tmp_path: Path
) -> None:
    server, folder = serve_http(fps=10), tmp_path / "saved"
    args = (
        *("run", f"door={server.url}", "--bundle", random_bundle, "--budget", 128),
        *("--snapshots", folder, "--save-every", "300ms", *BRIEF, "--fps", 10),
    )

    def watch_until(frames: int) -> tuple[Document, str]:
        process = spawn(*args)
        deadline = time.monotonic() + 60
        while saved_frames(folder) < frames:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        assert "INFO sources: " in stderr
        assert len([*folder.glob("*.safetensors")]) <= 3
        (summary,) = documents(stdout, "summary")
        # What was seen last was saved last.
        assert saved_frames(folder) == summary["memory"]["frames_seen"]
        return summary["memory"], stderr

    began = time.monotonic()
    first, stderr = watch_until(8)
    assert "goes on from" not in stderr
    # The source is lost while nobody looks.
    server.kill()
    server.start()
    second, stderr = watch_until(first["frames_seen"] + 8)
    assert re.search(
        rf"door: goes on from door-\S+, {first['frames_seen']} frames until "
        rf"{first['newest_s']:.1f} s$",
        stderr,
        re.M,
    )
    # The time in which nobody looked has passed in the stream, too, and not more than that.
    assert 0.8 < second["newest_s"] - first["newest_s"] < time.monotonic() - began


def test_a_memory_is_saved_once_while_its_source_is_away(
    random_bundle: Path, spawn: Spawn, serve_http: Callable[..., Any], tmp_path: Path
) -> None:
    server, folder = serve_http(fps=10), tmp_path / "saved"
    process = spawn(
        *("run", f"door={server.url}", "--bundle", random_bundle, "--budget", 128),
        *("--snapshots", folder, "--save-every", "100ms", *BRIEF, "--fps", 10),
    )
    deadline = time.monotonic() + 60
    while saved_frames(folder) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.kill()
    time.sleep(1)
    files = sorted(folder.glob("*.safetensors"))
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert sorted(folder.glob("*.safetensors")) == files
    (summary,) = documents(stdout, "summary")
    assert saved_frames(folder) == summary["memory"]["frames_seen"]


def test_a_memory_that_has_seen_nothing_is_not_saved(
    random_bundle: Path, cli: Cli, videos: list[Path], tmp_path: Path
) -> None:
    """Of a start that was refused: the next one, with a lower budget, is not refused for it."""
    args = (
        *("run", *videos, "--bundle", random_bundle, "--snapshots", tmp_path / "saved"),
        *("--memory-limit", "5MiB", *BRIEF),
    )
    assert cli(*args, "--budget", 128)[0] == 7
    assert [*(tmp_path / "saved").iterdir()] == []
    assert cli(*args, "--budget", 64, "--reserve-tokens", 64)[0] == 0


def test_metrics_of_a_live_stream(
    random_bundle: Path, spawn: Spawn, serve_http: Callable[..., Any]
) -> None:
    server = serve_http(fps=10)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = spawn(
        *("run", f"door={server.url}", "--bundle", random_bundle, "--budget", 128, "--log-json"),
        *("--metrics-port", port, *BRIEF, "--fps", 10),
    )
    deadline, found = time.monotonic() + 60, ""
    used = r'hermes_edge_frames_total\{outcome="used",stream="door"\} (\d+)'
    while not (seen := re.search(used, found)) or int(seen[1]) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
                found = page.read().decode()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert 'hermes_edge_stream_running{stream="door"} 1.0' in found
    lines = [json.loads(line) for line in stderr.splitlines()]
    assert (lines[0]["part"], lines[0]["stream"]) == ("sources", "door")
    assert {"time", "level", "part", "message"} <= lines[0].keys()


def test_a_signal_while_the_model_is_loaded_ends_in_order(
    random_bundle: Path, videos: list[Path], tmp_path: Path
) -> None:
    code = """
import os, signal
from hermes_edge.cli import main
from hermes_edge.runtime import Runtime
load = Runtime.load
def interrupted(*args, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    return load(*args, **options)
Runtime.load = interrupted
main()
"""
    args = ["run", *videos[:1], "--bundle", random_bundle, "--snapshots", tmp_path / "saved"]
    command = [*map(str, [sys.executable, "-c", code, *args, *BRIEF, "--ask", "0:11 A?"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    (summary,) = documents(done.stdout, "summary")
    assert summary["unanswered"] == 1
    assert saved_frames(tmp_path / "saved") == summary["memory"]["frames_seen"]


@pytest.mark.parametrize("hangs", [1, 12], ids=["at the start", "later"])
def test_an_engine_call_that_hangs_ends_the_process(
    random_bundle: Path, videos: list[Path], tmp_path: Path, hangs: int
) -> None:
    """Its snapshots stay, and whoever restarts it goes on from the newest."""
    args = ["run", *videos[:1], "--bundle", random_bundle, "--engine-timeout", "500ms", *BRIEF]
    code = """
import sys, time
from hermes_edge.cli import main
from hermes_edge.engines.ort import OrtEngine
hangs, run, calls = int(sys.argv.pop(1)), OrtEngine.run, []
def hanging(self, inputs, outputs):
    calls.append(1)
    if len(calls) == hangs:
        time.sleep(600)
    run(self, inputs, outputs)
OrtEngine.run = hanging
main()
"""
    command = [sys.executable, "-c", code, hangs, *args, "--snapshots", tmp_path / "saved"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 6
    assert re.search(r"CRITICAL watchdog: an engine call has taken \d+ s, longer than", done.stderr)
    assert done.stderr.endswith("error: the process ends, because nothing else can end that call\n")
    # Though nobody reads what it says.
    ours, theirs = os.pipe()
    os.close(ours)
    unheard = subprocess.run([*map(str, command)], stdout=theirs, stderr=theirs, timeout=120)
    os.close(theirs)
    assert unheard.returncode == 6


def test_the_table_shows_every_stream() -> None:
    streams = [
        StreamStatus(
            name="door",
            state="running",
            fps_in=9.96,
            frames={"in": 1234, "used": 60, "dropped": 5, "skipped": 2},
            age_s=0.44,
            rows_by_band={"sensory": 4013, "working": 4000},
            first_token=Times(1, 251.2, 251.2),
        ),
        StreamStatus(name="yard", state="starting"),
    ]
    drawn = io.StringIO()
    Console(width=120, file=drawn).print(table_of(streams))
    lines = [line.split() for line in drawn.getvalue().splitlines()]
    assert lines[0] == [*"stream state fps in in used dropped still age rows TTFT".split()]
    assert lines[1] == [*"door running 10.0 1,234 60 5 2 0.4 s 4,013 251 ms".split()]
    assert lines[2] == [*"yard starting 0.0 0 0 0 0 0".split()]
