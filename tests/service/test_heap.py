"""What Python and malloc keep in reserve while a service runs for long."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from hermes_edge.service.heap import frozen_heap
from hermes_edge.synthetic import make_stream, write_video

# A <heap> for each arena: https://man7.org/linux/man-pages/man3/malloc_info.3.html
COUNT = """
import ctypes
c = ctypes.CDLL(None)
c.fopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(c.fopen(PATH, b"w"))
c.malloc_info(0, stream)
c.fclose(stream)
print("arenas", open(PATH).read().count("<heap nr="))
"""
ALLOCATE = """
import threading
together = threading.Barrier(4)
def allocate():
    kept = [bytearray(10_000) for _ in range(100)]
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
SHARE = "from hermes_edge.service.heap import share_one_arena\nassert share_one_arena()\n"
RUN = """
from hermes_edge.cli import main
try: main()
except SystemExit as end: assert not end.code
"""
needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library has no malloc_info"
)


def _arenas(code: str, tmp_path: Path, *args: object) -> int:
    path = os.fsencode(tmp_path / "malloc.xml")
    command = [sys.executable, "-c", f"{code}\nPATH = {path!r}\n{COUNT}", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return int(done.stdout.rpartition("arenas ")[2])


@needs_glibc
def test_threads_share_one_arena_where_they_are_told_to(tmp_path: Path) -> None:
    assert _arenas(ALLOCATE, tmp_path) > 1
    assert _arenas(SHARE + ALLOCATE, tmp_path) == 1


@needs_glibc
def test_run_has_one_arena(random_bundle: Path, tmp_path: Path) -> None:
    video = tmp_path / "shapes.avi"
    write_video(video, make_stream(0, 40), fps=2)
    args = ("run", video, "--bundle", random_bundle, "--max-tokens", 2, "--ask", "0:02 A?")
    assert _arenas(RUN, tmp_path, *args) == 1


def test_what_is_there_is_frozen_and_what_comes_is_collected() -> None:
    class Node:
        def __init__(self) -> None:
            self.itself = self

    before = gc.get_freeze_count()
    with frozen_heap():
        assert gc.get_freeze_count() > before + 10_000
        gone = weakref.ref(Node())
        gc.collect()
        assert gone() is None
    assert gc.get_freeze_count() == 0
