"""What callers hand in, refused at the edge where it is of another type or out of range."""

from __future__ import annotations

import operator
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


def whole_numbers(values: object) -> tuple[int, ...] | None:
    """The whole numbers of a sequence; None where it is none, or holds anything else."""
    wanted: Any = values
    if isinstance(values, (str, bytes)):
        return None
    try:
        return tuple(map(operator.index, wanted))
    except TypeError:
        return None
