"""One line of ``hermes-edge doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it came out, what was found, what mends it."""

    name: str
    status: Status
    found: str
    fix: str | None = None
