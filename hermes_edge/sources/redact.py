"""Addresses as people may see them: no password, no token."""

from __future__ import annotations

import re

from hermes_edge.sources.pictures import printable

HIDDEN = "***"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s\"']+)")
# Properties of GStreamer's sources: user-id, user-pw, proxy-pw, password, auth-token, ...
_PROPERTY = re.compile(
    r"([\w-]*(?:user|pw|pass|secret|token|key|auth|cookie|header)[\w-]*\s*=\s*)"
    r"(\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s!]+)",
    re.IGNORECASE,
)


def redacted_url(url: str) -> str:
    """Without user and password, query, fragment, and whatever follows a ``=`` in the path.

    What cannot be taken apart for certain, such as a password with an unescaped slash, is hidden
    whole behind the scheme.
    """
    scheme, separator, rest = printable(url).partition("://")
    if not separator:
        return HIDDEN
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    if "@" in path:
        return f"{scheme}://{HIDDEN}"
    _user, at, host = authority.rpartition("@")
    host = f"{HIDDEN}@{host}" if at else host
    path = re.sub(r"[?#].*", lambda match: match[0][0] + HIDDEN, path, flags=re.DOTALL)
    path = re.sub(r"=[^/?#]*", f"={HIDDEN}", path)
    return f"{scheme}://{host}{path}"


def redacted_pipeline(pipeline: str) -> str:
    """A GStreamer pipeline with its URLs redacted, and values of properties that name secrets."""
    text = _URL.sub(lambda match: redacted_url(match[0]), printable(pipeline))
    return _PROPERTY.sub(rf"\1{HIDDEN}", text)
