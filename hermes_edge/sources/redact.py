"""Addresses as people may see them: no password, no token."""

from __future__ import annotations

import re

from hermes_edge.errors import SettingsError
from hermes_edge.sources.pictures import printable

HIDDEN = "***"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)
# Anything else at a host's place may be a user and a password whose @ is missing or escaped.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]*(?:%\w*)?\]|[^:%\[\]]*)(?::[0-9]{0,5})?", re.ASCII)
_AT = "@|%40"
# Words of a pipeline as gst-launch reads them: quoted, escaped, or up to a space; an exclamation
# mark links elements where it stands alone or ends a word.
_WORD = r"(?:\\.|\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|!(?=\S)|[^\s!\"'\\])+"
# The property of an element that another one holds is "source::user-pw".
_PART = re.compile(rf"(?:((?:[\w-]+::)*[\w-]+)(\s*=\s*))?({_WORD})", re.DOTALL)
# Properties of GStreamer's sources: user-id, user-pw, proxy-id, password, auth-token, ...
_NAMES = "user|proxy-id|pw|pass|secret|token|key|auth|cookie|header"
_SECRET = re.compile(_NAMES, re.IGNORECASE)
_SECRET_INSIDE = re.compile(rf"(?:{_NAMES})[\w-]*\s*=", re.IGNORECASE)
_QUOTED = re.compile(r"(\"|')(.*)\1", re.DOTALL)


def check_address_text(name: str, value: object) -> None:
    """Refuse what is not text, without quoting it: it may hold a password all the same.

    Raises:
        SettingsError: it is none.
    """
    if not isinstance(value, str):
        found = f"a value of type {type(value).__name__}"
        raise SettingsError(f"{name} is not text", required="text", found=found)


def redacted_url(url: str) -> str:
    """Without user and password, query, fragment, and whatever follows a ``=`` in the path.

    What cannot be taken apart for certain, such as a password with an unescaped slash, or without
    an unescaped ``@`` behind it, is hidden whole behind the scheme.
    """
    scheme, separator, rest = printable(url).partition("://")
    if not separator:
        return HIDDEN
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    _user, at, host = authority.rpartition("@")
    if re.search(_AT, path) or not _HOST.fullmatch(host):
        return f"{scheme}://{HIDDEN}"
    host = f"{HIDDEN}@{host}" if at else host
    path = re.sub(r"[?#].*", lambda match: match[0][0] + HIDDEN, path, flags=re.DOTALL)
    path = re.sub(r"=[^/?#]*", f"={HIDDEN}", path)
    return f"{scheme}://{host}{path}"


def redacted_text(text: str) -> str:
    """What is no address: an URL in it redacted, else named secrets, else user:password@host."""
    text = printable(text)
    if url := _URL.search(text):
        before = text[: url.start()]
        return (redacted_text(before) if before else "") + redacted_url(url[0])
    if _SECRET_INSIDE.search(text):
        return redacted_pipeline(text)
    login = re.match(rf"(.*)(?:{_AT})", text, re.DOTALL)
    return f"{HIDDEN}@{text[login.end() :]}" if login and re.search(":|//", login[1]) else text


def redacted_pipeline(pipeline: str) -> str:
    """A GStreamer pipeline with its URLs redacted, and values of properties that name secrets."""
    return _PART.sub(_redacted_part, printable(pipeline))


def _redacted_part(match: re.Match[str]) -> str:
    name, equals, word = match.groups()
    if name is None:
        return _redacted_word(word)
    return name + equals + (HIDDEN if _SECRET.search(name) else _redacted_word(word))


def _redacted_word(word: str) -> str:
    """A value, or an URL that stands for an element."""
    quoted = _QUOTED.fullmatch(word)
    quote, inner = (quoted[1], quoted[2]) if quoted else ("", word)
    if not (re.search(f"://|{_AT}", inner) or _SECRET_INSIDE.search(inner)):
        return word
    # Of an URL without odd characters alone it is certain where its parts end.
    plain = _URL.fullmatch(inner) and not re.search(r"[\s\"'\\]", inner)
    return quote + (redacted_url(inner) if plain else HIDDEN) + quote
