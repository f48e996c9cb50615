"""What a user's word for a source means.

street.mp4, frames/       a file or folder that exists
cam0, /dev/video0         a camera; also /dev/v4l/by-id/...
rtsp://user:word@host/x   a stream; also rtsps, http, https, rtmp, tcp, udp, rtp
v4l2src ! ... ! appsink   a GStreamer pipeline
door=cam0                 any of them under a name
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from hermes_edge.errors import SourceError
from hermes_edge.sources.base import Source
from hermes_edge.sources.camera import Camera
from hermes_edge.sources.files import VideoFile
from hermes_edge.sources.folder import ImageFolder
from hermes_edge.sources.live import LiveSource
from hermes_edge.sources.pictures import printable
from hermes_edge.sources.redact import (
    HIDDEN,
    check_address_text,
    redacted_pipeline,
    redacted_text,
    redacted_url,
)
from hermes_edge.sources.streams import DATAGRAM_SCHEMES, Pipeline, UrlStream

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "tcp", *DATAGRAM_SCHEMES)
FORMS = (
    "a file or folder that exists, camN, /dev/videoN, "
    f"{', '.join(f'{scheme}://' for scheme in SCHEMES)}, or a GStreamer pipeline with ' ! '; "
    "NAME= may stand before it"
)

_NAMED = re.compile(r"([A-Za-z][\w-]*)=(.+)", re.DOTALL | re.ASCII)
_CAMERA = re.compile(r"cam([0-9]+)", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)

Kind = Literal["file", "folder", "camera", "url", "pipeline"]
_LIVE_KINDS: dict[Kind, Callable[[str, float | None], LiveSource]] = {
    "camera": Camera,
    "url": UrlStream,
    "pipeline": Pipeline,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where frames come from. Only ``name`` and ``shown`` are for people."""

    name: str
    """The user's, or one made from the address."""
    kind: Kind
    shown: str
    """The address without passwords and tokens."""
    target: str = field(repr=False)
    """Path, device, URL or pipeline, with its secrets."""
    named: bool = field(default=False, repr=False)
    """Whether the name is the user's."""

    @property
    def live(self) -> bool:
        """Whether frames are gone if nobody takes them."""
        return self.kind not in ("file", "folder")

    def open(self, fps: float | None = None, *, insists: bool = False) -> Source:
        """The source, giving ``fps`` frames per second; None for every frame.

        A live one connects when it is read; one that ``insists`` until it is there. What it logs
        begins with the address's name.

        Raises:
            SettingsError: ``fps`` is neither None nor a number.
            SourceError: as of :class:`VideoFile`, :class:`ImageFolder`, :class:`Camera`,
                :class:`UrlStream` and :class:`Pipeline`.
        """
        source: Source
        if self.kind == "file":
            source = VideoFile(self.target, fps)
        elif self.kind == "folder":
            source = ImageFolder(self.target, fps)
        else:
            source = live = _LIVE_KINDS[self.kind](self.target, fps)
            live.insists = insists
        source.stream = self.name
        return source


def open_source(address: str | Path, fps: float | None = None) -> Source:
    """Open what ``address`` means; see :func:`parse_address`.

    What it logs begins with the name, or, where there is none, with the address.

    Raises:
        SettingsError: ``address`` is neither text nor a path, or ``fps`` no number.
        SourceError: as of :func:`parse_address` and :meth:`Address.open`.
    """
    parsed = parse_address(address)
    source = parsed.open(fps)
    if not parsed.named:
        source.stream = None  # a host's name says less than the address
    return source


def parse_address(text: str | Path) -> Address:
    """What a path, device, URL or pipeline means, with ``NAME=`` before it or not.

    A file that exists is meant whatever its name looks like; a :class:`Path` always is one.

    Raises:
        SettingsError: it is neither text nor a path.
        SourceError: it is none of the forms.
    """
    if isinstance(text, Path):
        return _path_address(None, os.fspath(text))
    check_address_text("address", text)
    named = None if os.path.exists(text) else _NAMED.fullmatch(text)
    name, target = (named[1], named[2]) if named else (None, text)
    if os.path.isfile(target) or os.path.isdir(target):
        return _path_address(name, target)
    camera, scheme = _CAMERA.fullmatch(target), _SCHEME.match(target)
    if camera or target.startswith("/dev/"):
        device = f"/dev/video{camera[1]}" if camera else target
        shown = printable(device)
        return Address(name or Path(device).name, "camera", shown, device, named is not None)
    if os.path.exists(target):
        return _path_address(name, target)
    if " ! " in target:
        shown = redacted_pipeline(target)
        return Address(name or "pipeline", "pipeline", shown, target, named is not None)
    if scheme:
        return _url_address(name, scheme[1].lower(), target)
    # What may be an URL with a mistake in it, or behind a name that is none, is no path.
    shown = redacted_text(text)
    if shown == printable(text) and "://" not in text and (Path(target).suffix or "/" in target):
        return _path_address(name, target)  # opening it says what is wrong
    raise SourceError("no source goes by that name", required=FORMS, found=repr(shown))


def _path_address(name: str | None, path: str) -> Address:
    kind: Kind = "folder" if os.path.isdir(path) else "file"
    shown = printable(path)
    return Address(name or Path(path).stem or "stream", kind, shown, path, name is not None)


def _url_address(name: str | None, scheme: str, url: str) -> Address:
    shown = redacted_url(url)
    if scheme not in SCHEMES:
        raise SourceError(f"{shown} has an unknown scheme", required=FORMS, found=f"{scheme}://")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # both may raise
        plain = re.search(r"[\x00-\x20\x7f]", url) is None and printable(url) == url
    except ValueError:
        host, plain = None, False
    if not plain or (not host and scheme not in DATAGRAM_SCHEMES):
        raise SourceError(
            f"{shown} is not an address",
            required="scheme://user:password@host:port/path, with odd characters as %XX",
        )
    if shown.partition("://")[2] == HIDDEN:
        host = None  # what stands in its place may be a part of the password
    # FFmpeg knows its protocols by their small letters.
    target = scheme + url[len(scheme) :]
    return Address(name or host or "stream", "url", shown, target, name is not None)
