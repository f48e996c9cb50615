"""Keeps what Python and malloc hold in reserve from growing for hours.

Neither is a leak, and both end somewhere; together they were 40 kB a minute (docs/log.md).
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_M_ARENA_MAX = -8  # malloc.h of glibc


def share_one_arena() -> bool:
    """Let all threads of this process allocate from one arena.

    glibc gives threads arenas of their own, and each keeps what its peak took. Call it before
    threads allocate: arenas that exist stay.

    Returns:
        Whether the C library is one that can be told so.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1


@contextmanager
def frozen_heap() -> Iterator[None]:
    """While it lasts, ``gc.collect()`` looks only at objects that are younger: 0.1 ms, not 70.

    A full collection is what empties Python's lists of free tuples, which grow by some three a
    second. It does not come by itself: CPython (3.10 to 3.13) waits until a quarter of all objects
    is new. At the end everything is unfrozen, also what the caller froze before.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
