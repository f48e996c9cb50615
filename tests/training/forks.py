"""Runs trainings as processes that are forked from this one, which has loaded torch once.

Loading takes seconds, and is the same for all. A line of JSON in starts a training, its process id
comes back, and its exit code when it has ended:

    {"args": ["FOLDER"], "output": "FOLDER", "most_bytes": null, "powerless": false}
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import runpy
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

# Loaded here, before the forks, and used in them.
for name in ("hermes_edge.export", "hermes_edge.training.command", "hermes_edge.training.loop"):
    import_module(name)


def lose_power() -> None:
    """Files' permissions hold for this process, even where it is root's."""
    version, every_capability_set = 0x20080522, 6
    header = (ctypes.c_uint32 * 2)(version, 0)
    if ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * every_capability_set)()):
        raise OSError("capset")


def become(wish: dict[str, Any]) -> None:
    """Turn this process into a training; does not return."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(Path(wish["output"]) / name, flags), stream)
    if wish["most_bytes"] is not None:
        # Python ignores SIGXFSZ: a write beyond the limit fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (wish["most_bytes"],) * 2)
    if wish["powerless"]:
        lose_power()
    sys.argv = ["hermes_edge.training", *wish["args"]]
    runpy.run_module("hermes_edge.training", run_name="__main__", alter_sys=True)
    sys.exit(0)


def tell(number: int) -> None:
    """One line."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(json.loads(line))
        tell(child)
        tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
