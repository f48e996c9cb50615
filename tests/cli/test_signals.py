"""The first signal, at any moment, and the second one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes_edge.cli.signals import stop_on_signals

Reap = Callable[["subprocess.Popen[str]"], None]

# As ``run`` waits, but without a pause between two looks, and again and again.
WAITS = """
import sys
from hermes_edge.cli.signals import stop_on_signals
from hermes_edge.runtime import Runtime
from hermes_edge.service import service as waiting
from hermes_edge.service.stream import Stream, StreamPlan
from hermes_edge.sources import Capture, parse_address

waiting._LOOK_EVERY_S = 0.0
runtime = Runtime.load(sys.argv[1], threads=1)
session = runtime.session(policy="window", budget_tokens=64, chunk_frames=4, reserve_tokens=64)
away = parse_address("http://127.0.0.1:9/live.ts").open(insists=True)
stream = Stream(StreamPlan("door"), Capture(away), session, None)
service = waiting.Service(runtime, [stream], print, silent_after_s=60, engine_timeout_s=60)
service.start()
for _ in range(int(sys.argv[2])):
    looks = 0
    def look():
        global looks
        looks += 1
        if looks == 1:
            print("ready", flush=True)
    with stop_on_signals() as stopped:
        service.wait(stopped, look)
    print("stopped", flush=True)
service.stop()
"""


def start(code: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_signal_ends_the_wait_at_whatever_moment_it_comes(
    random_bundle: Path, reap: Reap
) -> None:
    times, chance = 300, random.Random(0)
    process = start(WAITS, random_bundle, times)
    reap(process)
    assert process.stdout is not None
    for number in chance.choices([signal.SIGINT, signal.SIGTERM], k=times):
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.005))
        process.send_signal(number)
        assert process.stdout.readline() == "stopped\n"
    assert process.wait(timeout=60) == 0
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_process_whose_main_thread_runs_no_handler(
    number: signal.Signals, reap: Reap
) -> None:
    """As while a model loads, or where the first calls of an engine hang."""
    code = """
import hashlib
from hermes_edge.cli.signals import stop_on_signals
with stop_on_signals():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
"""
    process = start(code)
    reap(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    process.stdout.close()


def test_what_listened_to_signals_before_does_so_again() -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        with stop_on_signals() as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert told == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(number: signal.Signals, reap: Reap) -> None:
    code = """
import time
from hermes_edge.cli.signals import stop_on_signals
with stop_on_signals() as stopped:
    print("ready", flush=True)
    while not stopped():
        time.sleep(0.01)
    print("stopping", flush=True)
    time.sleep(600)
"""
    process = start(code)
    reap(process)
    assert process.stdout is not None
    for word in ("ready", "stopping"):
        assert process.stdout.readline().strip() == word
        process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    process.stdout.close()
