"""A user's text as a message may repeat it: whoever takes an address for something else has typed
its password. Addresses themselves are :mod:`hermes_edge.sources.redact`'s."""

from __future__ import annotations

import re

HIDDEN = "***"

_BEHIND = re.compile(
    r"(://|(?:user|pw|pass|secret|token|key|auth)[\w-]*\s*=).*", re.DOTALL | re.IGNORECASE
)
_BEFORE = re.compile(r"\A.*:.*(?:@|%40)", re.DOTALL)
# A path has lost one of the two slashes; what a cut has left has no @, and no port of digits.
_LOGIN = re.compile(
    r"""([A-Za-z][A-Za-z0-9+.-]{0,30}:/{1,2})"""
    r"""(?:[^\s'"]*(?:@|%40)|[^\s'"/:@\[]*:(?![0-9]{1,5}(?![^\s'"/?\#]))[^\s'"]+)"""
)


def hidden(text: str) -> str:
    """Without what may be a password: nothing behind ``://`` or a secret's name, no login."""
    return _BEFORE.sub(f"{HIDDEN}@", _BEHIND.sub(rf"\1{HIDDEN}", text))


def quoted(value: object) -> str:
    """A value in quotes, as ``repr`` has it, without what may be a password."""
    return repr(hidden(value)) if isinstance(value, str) else hidden(repr(value))


def without_logins(message: str) -> str:
    """A whole message, without the logins of the addresses in it that nothing interrupts."""
    return _LOGIN.sub(_without_login, message)


def _without_login(match: re.Match[str]) -> str:
    return f"{match[1]}{HIDDEN}" + ("@" if match[0].endswith(("@", "%40")) else "")
