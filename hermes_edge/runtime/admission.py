"""Which streams fit: slabs are added up before they are made."""

from __future__ import annotations

import itertools
import threading

from hermes_edge.engines import Device
from hermes_edge.errors import BudgetError

_FIX = "Lower budgets or chunk_frames, or leave a stream out"


class Admission:
    """Bytes of the sessions' slabs, by stream; refuses a session that would not fit."""

    def __init__(self, device: Device, limit_bytes: int | None) -> None:
        """``limit_bytes``: of all sessions together; None for what the device has."""
        self._device, self._limit_bytes = device, limit_bytes
        self._held: dict[int, tuple[str, int]] = {}
        self._keys = itertools.count()
        self._admitting = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Of all sessions."""
        return _sum(self._held.copy())

    def admit(self, name: str, slab_bytes: int, spare_bytes: int) -> int:
        """Count a session in.

        Returns:
            What :meth:`release` takes.

        Raises:
            BudgetError: it does not fit beside the others, or the device has not as much left.
        """
        wanted = slab_bytes + spare_bytes
        required = f"{wanted:,} bytes (slabs {slab_bytes:,}, spare {spare_bytes:,})"
        with self._admitting:
            # A copy: a session that is garbage is counted out by whatever thread finds it.
            held = self._held.copy()
            if self._limit_bytes is not None and _sum(held) + wanted > self._limit_bytes:
                left = max(self._limit_bytes - _sum(held), 0)
                others = ", ".join(f"{other} {nbytes:,}" for other, nbytes in held.values())
                raise BudgetError(
                    f"the memory of {name} does not fit the limit for all streams",
                    required=required,
                    found=f"{left:,} left of {self._limit_bytes:,}"
                    + (f" beside {others}" if others else ""),
                    fix=f"{_FIX}, or raise the limit",
                )
            free = self._device.free_bytes()
            if free is not None and wanted > free:
                raise BudgetError(
                    f"the memory of {name} does not fit {self._device.name}",
                    required=required,
                    found=f"{free:,} free",
                    fix=f"{_FIX}, or end other programs",
                )
            key = next(self._keys)
            self._held[key] = name, wanted
            return key

    def release(self, key: int) -> None:
        """Count a session out; twice is fine.

        Takes no lock: the garbage collector may come to it from within :meth:`admit`.
        """
        self._held.pop(key, None)


def _sum(held: dict[int, tuple[str, int]]) -> int:
    return sum(nbytes for _, nbytes in held.values())
