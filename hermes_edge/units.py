"""Sizes, budgets and times as people write them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from hermes_edge.errors import SettingsError
from hermes_edge.quoting import quoted

_UNIT_BYTES = {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
BUDGET_FORM = "tokens such as 4000, or bytes such as 64MiB or 0.5GiB"
BYTES_FORM = "bytes such as 64MiB or 0.5GiB"
TIME_FORM = "M:SS, H:MM:SS, seconds or end"
DURATION_FORM = "a duration such as 500ms, 60s, 5min or 2h"

_UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Budget:
    """What a layer may keep: visual tokens, or bytes over all layers; exactly one is set."""

    tokens: int | None
    nbytes: int | None


def parse_budget(text: str) -> Budget:
    """``4000`` (tokens a layer), ``64MiB`` or ``0.5GiB`` (keys and values of all layers).

    Raises:
        SettingsError: neither, or not above 0.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*(KiB|MiB|GiB)?", text.strip(), re.I)
    if match is not None:
        number, unit = match.groups()
        if unit is not None and (nbytes := int(float(number) * _UNIT_BYTES[unit.upper()])) > 0:
            return Budget(None, nbytes)
        if unit is None and number.isdecimal() and int(number) > 0:
            return Budget(int(number), None)
    raise SettingsError("unknown budget", required=BUDGET_FORM, found=quoted(text))


def parse_time(text: str) -> float:
    """``0:12``, ``1:02:03``, ``12.5`` to seconds; ``end`` to infinity.

    Raises:
        SettingsError: none of these forms, or minutes or seconds of 60 and more.
    """
    if text == "end":
        return math.inf
    match = re.fullmatch(
        r"(?:(?:([0-9]{1,9}):)?([0-9]{1,9}):)?([0-9]{1,9}(?:\.[0-9]+)?)", text, re.A
    )
    if match is not None:
        hours, minutes, seconds = match.groups()
        in_range = (minutes is None or float(seconds) < 60) and (hours is None or int(minutes) < 60)
        if in_range:
            return int(hours or 0) * 3600.0 + int(minutes or 0) * 60.0 + float(seconds)
    raise SettingsError("unknown time", required=TIME_FORM, found=quoted(text))


def parse_bytes(text: str, name: str, *, zero: bool = False) -> int:
    """``64MiB`` to bytes; with ``zero`` also ``0``, with or without a unit.

    Raises:
        SettingsError: another form; ``name`` says what of.
    """
    if zero and re.fullmatch(r"0(?:\.0+)?\s*(?:KiB|MiB|GiB)?", text.strip(), re.I):
        return 0
    try:
        nbytes = parse_budget(text).nbytes
    except SettingsError:
        nbytes = None
    if nbytes is None:
        form = f"0, or {BYTES_FORM}" if zero else BYTES_FORM
        raise SettingsError(f"unknown {name}", required=form, found=quoted(text))
    return nbytes


def parse_duration(text: str) -> float:
    """``500ms``, ``60s``, ``5min``, ``2h`` to seconds.

    Raises:
        SettingsError: another form, or not above 0.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s|min|h)", text.strip(), re.A)
    if match is not None and (seconds := float(match[1]) * _UNIT_SECONDS[match[2]]) > 0:
        return seconds
    raise SettingsError("unknown duration", required=DURATION_FORM, found=quoted(text))
