"""What callers hand in, refused at the edge where it is of another type or out of range."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from numbers import Real
from pathlib import Path
from typing import Any

from hermes_edge.errors import SettingsError


def whole(name: str, value: object, *, least: int | None = None, most: int | None = None) -> int:
    """A whole number, numpy's too, between two bounds.

    Raises:
        SettingsError: it is none, or lies outside them.
    """
    bounds = [f"at least {least}"] if least is not None else []
    bounds += [f"at most {most}"] if most is not None else []
    wanted: Any = value
    try:
        number = operator.index(wanted)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        required = ", ".join(["a whole number", *bounds])
        raise SettingsError(f"{name} is not a whole number", required=required, found=repr(value))
    if (least is not None and number < least) or (most is not None and number > most):
        required = ", ".join(bounds)
        raise SettingsError(f"{name} is out of range", required=required, found=number)
    return number


def optional_whole(name: str, value: object, *, least: int | None = None) -> int | None:
    """The same; None stays None.

    Raises:
        SettingsError: as of :func:`whole`.
    """
    return None if value is None else whole(name, value, least=least)


def check_text(**values: object) -> None:
    """Refuse what is not text.

    Raises:
        SettingsError: the first that is not, by its name.
    """
    for name, value in values.items():
        if not isinstance(value, str):
            raise SettingsError(f"{name} is not text", required="text", found=repr(value))


def real(value: object) -> float | None:
    """A real number, which may be infinite or NaN; None for anything else, or beyond floats."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None
    except OverflowError:
        return None


def seconds(name: str, value: object, *, most: float = math.inf) -> float:
    """A time above 0, at most ``most``.

    Raises:
        SettingsError: it is none.
    """
    number = real(value)
    if number is None:
        raise SettingsError(
            f"{name} is not a number", required="a number, above 0 s", found=reprlib.repr(value)
        )
    if not 0 < number <= most:
        raise SettingsError(f"{name} is out of range", required="above 0 s", found=number)
    return number


def path_of(name: str, value: object) -> Path:
    """A path, from one or from its text.

    Raises:
        SettingsError: it is neither, or holds a zero byte.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    check_text(**{name: text})
    if "\0" in str(text):
        raise SettingsError(f"{name} holds a zero byte", required="a path", found=repr(text))
    return Path(str(text))


def check_function(name: str, value: object) -> None:
    """Refuse what cannot be called.

    Raises:
        SettingsError: it is no function.
    """
    if not callable(value):
        found = reprlib.repr(value)
        raise SettingsError(f"{name} is no function", required="a function", found=found)


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse what is of another class.

    Raises:
        SettingsError: it is.
    """
    if not isinstance(value, kind):
        required, found = f"an instance of {kind.__name__}", reprlib.repr(value)
        raise SettingsError(f"{name} is of another type", required=required, found=found)


def token_ids(name: str, values: object) -> tuple[int, ...]:
    """The token ids of a sequence.

    Raises:
        SettingsError: it is none, or holds anything else than whole numbers.
    """
    ids = whole_numbers(values)
    if ids is None:
        raise SettingsError(
            f"{name} are not token ids",
            required="a list of whole numbers",
            found=reprlib.repr(values),
        )
    return ids


def whole_numbers(values: object) -> tuple[int, ...] | None:
    """The whole numbers of a sequence; None where it is none, or holds anything else."""
    wanted: Any = values
    if isinstance(values, (str, bytes)):
        return None
    try:
        return tuple(map(operator.index, wanted))
    except TypeError:
        return None
