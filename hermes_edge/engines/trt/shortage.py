"""Too little device memory, told by what TensorRT has logged: it hands out nothing and goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hermes_edge.errors import EngineError

_SHORT = re.compile("out ?of ?memory|insufficient memory|gpu memory", re.I)
# "GPU memory (123 bytes) could not be allocated", "Requested size was 123 bytes",
# "insufficient memory on requested size of 123".
_ASKED = re.compile(r"\((\d+) bytes\)|size (?:was|of) (\d+)")


def is_short(heard: Sequence[str]) -> bool:
    """Whether any message is about too little memory."""
    return any(_SHORT.search(message) for message in heard)


def shortage(
    problem: str,
    heard: Sequence[str],
    asked: int | None,
    memory: tuple[int, int] | None,
    fix: str,
) -> EngineError:
    """The error of a lack of device memory.

    Args:
        problem: what could not be done.
        heard: what TensorRT has logged; the most bytes that it names go before ``asked``.
        asked: bytes that were needed, as far as is known otherwise.
        memory: free bytes and all bytes of the device, where they are known.
        fix: the knobs to turn.
    """
    named = [int(a or b) for message in heard for a, b in _ASKED.findall(message)]
    wanted = max(named, default=asked)
    free = [] if memory is None else [f"{memory[0]:,} free of {memory[1]:,}"]
    return EngineError(
        problem,
        required=None if wanted is None else f"{wanted:,} bytes of device memory",
        found="; ".join((*free, *heard[-3:])) or None,
        fix=fix,
    )
