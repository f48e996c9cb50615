"""What users write for a source, and what others may see of it."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

import cv2
import numpy as np
import pytest

from hermes_edge.errors import SourceError
from hermes_edge.sources import (
    Camera,
    ImageFolder,
    Pipeline,
    UrlStream,
    open_source,
    parse_address,
)
from hermes_edge.sources.address import FORMS
from hermes_edge.sources.redact import redacted_pipeline, redacted_url


@pytest.mark.parametrize(
    ("text", "name", "kind", "shown"),
    [
        ("cam0", "video0", "camera", "/dev/video0"),
        ("cam12", "video12", "camera", "/dev/video12"),
        ("/dev/video3", "video3", "camera", "/dev/video3"),
        ("/dev/v4l/by-id/usb-x", "usb-x", "camera", "/dev/v4l/by-id/usb-x"),
        ("door=cam1", "door", "camera", "/dev/video1"),
        ("rtsp://10.0.0.7/s", "10.0.0.7", "url", "rtsp://10.0.0.7/s"),
        ("a-b_9=RTSP://u:p@h:554/s", "a-b_9", "url", "RTSP://***@h:554/s"),
        ("https://h/a?t=1", "h", "url", "https://h/a?***"),
        ("udp://:5000", "stream", "url", "udp://:5000"),
        ("yard=udp://@239.0.0.1:5000", "yard", "url", "udp://***@239.0.0.1:5000"),
        ("videotestsrc ! appsink", "pipeline", "pipeline", "videotestsrc ! appsink"),
        ("x=filesrc location=a ! appsink", "x", "pipeline", "filesrc location=a ! appsink"),
        ("v4l2src device=/dev/video0 ! appsink", "pipeline", "pipeline", None),
        ("missing.mp4", "missing", "file", "missing.mp4"),
        ("some/where", "where", "file", "some/where"),
    ],
)
def test_what_an_address_means(text: str, name: str, kind: str, shown: str | None) -> None:
    address = parse_address(text)
    assert (address.name, address.kind, address.shown) == (name, kind, shown or text)
    assert address.live == (kind != "file")


def test_an_existing_file_is_meant_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("door=cam0", "cam7.avi", "a ! b.mp4"):
        Path(name).touch()
        assert parse_address(name).kind == "file"
        assert parse_address(f"door={name}").target == name
        assert parse_address(f"door={name}").name == "door"
    for name in ("frames", "cam3"):
        Path(name).mkdir()
        assert parse_address(name).kind == parse_address(f"door={name}").kind == "folder"
    with NamedTemporaryFile(dir="/dev/shm", suffix=".mp4") as video:
        assert parse_address(video.name).kind == "file"
    assert parse_address("/dev/null").kind == "camera"
    # A path is never an address.
    assert parse_address(Path("rtsp:/host/x")).kind == "file"


def test_opening(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4), np.uint8))
    assert isinstance(open_source(str(tmp_path)), ImageFolder)
    with pytest.raises(SourceError, match="does not exist"):
        open_source("missing.mp4")
    # The live ones connect when they are read.
    assert isinstance(open_source("cam0", 2), Camera)
    stream = open_source("rtsp://u:p@127.0.0.1/s", 2)
    assert isinstance(stream, UrlStream)
    assert stream.fps == 2
    assert stream.live


@pytest.mark.parametrize("text", ["", "cam", "camera0", "nothing", "9"])
def test_words_that_are_no_address(text: str) -> None:
    with pytest.raises(SourceError) as refused:
        parse_address(text)
    assert str(refused.value) == (f"no source goes by that name: required {FORMS}, found {text!r}")


def test_an_unknown_scheme() -> None:
    with pytest.raises(SourceError) as refused:
        parse_address("ftp://u:p@host/a")
    assert str(refused.value) == (
        f"ftp://***@host/a has an unknown scheme: required {FORMS}, found ftp://"
    )


@pytest.mark.parametrize(
    "url",
    ["rtsp://", "http:///x", "rtsp://h:99999/", "rtsp://h:a/", "http://h/a b", "http://[::1/"],
)
def test_urls_that_lead_nowhere(url: str) -> None:
    with pytest.raises(SourceError) as refused:
        parse_address(url)
    assert str(refused.value) == (
        f"{redacted_url(url)} is not an address: "
        "required scheme://user:password@host:port/path, with odd characters as %XX"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://h/s", "rtsp://h/s"),
        ("rtsp://user:s3cret@h:554/s", "rtsp://***@h:554/s"),
        ("rtsp://s3cret@h/s", "rtsp://***@h/s"),
        ("rtsp://user:s3c@ret@h/s", "rtsp://***@h/s"),
        ("rtsp://user:s3c:ret@[::1]:554/s", "rtsp://***@[::1]:554/s"),
        ("http://h/v?token=s3cret&x=1", "http://h/v?***"),
        ("http://h?s3cret", "http://h?***"),
        ("http://h/v#s3cret", "http://h/v#***"),
        ("rtsp://h/user=admin&password=s3cret&channel=1/x", "rtsp://h/user=***/x"),
        # Unescaped, so that it is unclear where the password ends.
        ("rtsp://user:s3c/ret@h/s", "rtsp://***"),
        ("rtsp://user:s3c?ret@h/s", "rtsp://***"),
        ("rtsp://user:s3c#ret@h/s", "rtsp://***"),
        ("http://h/v?mail=s3c@ret", "http://***"),
        # Nor where it begins, if its @ is missing, or escaped, too.
        ("rtsp://user:s3cret/s", "rtsp://***"),
        ("rtsp://user:s3cret", "rtsp://***"),
        ("rtsp://user:s3cret:554/s", "rtsp://***"),
        ("rtsp://user:s3cret:10.0.0.7:554/s", "rtsp://***"),
        ("rtsp://user:s3cret%4010.0.0.7/s", "rtsp://***"),
        ("rtsp://user:s3cret%4010.0.0.7:554/s", "rtsp://***"),
        ("rtsp://user:123456%40h/s", "rtsp://***"),
        ("rtsp://s3cret%40h/s", "rtsp://***"),
        ("rtsp://user%3As3cret%40h:554/s", "rtsp://***"),
        ("rtsp://user:1/s3cret%40h/s", "rtsp://***"),
        ("rtsp://user:p@s3:cret/s", "rtsp://***"),
        ("rtsp://[s3cret]:554/s", "rtsp://***"),
        ("rtsp://user:s3c%40ret@h/s", "rtsp://***@h/s"),
        # Ports, and literals of IPv6 with one, without one, and with a zone.
        ("rtsp://10.0.0.7:554/s", "rtsp://10.0.0.7:554/s"),
        ("rtsp://u:s3cret@h:99999/s", "rtsp://***@h:99999/s"),
        ("rtsp://[::1]:554/s", "rtsp://[::1]:554/s"),
        ("rtsp://[::ffff:10.0.0.7]/s", "rtsp://[::ffff:10.0.0.7]/s"),
        ("rtsp://u:s3cret@[fe80::1%25eth0]:554", "rtsp://***@[fe80::1%25eth0]:554"),
        ("udp://@:5000", "udp://***@:5000"),
        ("s3cret", "***"),
    ],
)
def test_secrets_of_a_url(url: str, shown: str) -> None:
    assert redacted_url(url) == shown


@pytest.mark.parametrize(
    ("pipeline", "shown"),
    [
        (
            "rtspsrc location=rtsp://u:s3cret@h/s?k=s3cret latency=0 ! appsink",
            "rtspsrc location=rtsp://***@h/s?*** latency=0 ! appsink",
        ),
        (
            'rtspsrc location="rtsp://u:s3cret@h/s" ! appsink',
            'rtspsrc location="rtsp://***@h/s" ! appsink',
        ),
        ("rtspsrc user-id=bob user-pw=s3cret ! x", "rtspsrc user-id=*** user-pw=*** ! x"),
        ("souphttpsrc user-pw = 's3 cret' ! x", "souphttpsrc user-pw = *** ! x"),
        # A property of the element that another one makes.
        ("x source::user-pw = s3cret ! y", "x source::user-pw = *** ! y"),
        ("x source::user-pw=s3cret a::b::token= s3cret", "x source::user-pw=*** a::b::token= ***"),
        ('x proxy-pw="s3\\"cret" location=h ! y', "x proxy-pw=*** location=h ! y"),
        ("x auth-token=s3cret! y", "x auth-token=***! y"),
        ("x user-pw=s3!cret proxy-id=s3cret ! y", "x user-pw=*** proxy-id=*** ! y"),
        # A backslash before a space, a type before a quote, a quote that is never closed.
        ("x user-pw=s3\\ cret ! y", "x user-pw=*** ! y"),
        ('x user-pw=(string)"s3 cret" ! y', "x user-pw=*** ! y"),
        ('x user-pw="s3 cret ! y', "x user-pw=***"),
        # Whose parts end where, nobody can say.
        ('x location="rtsp://u:s3 cret@h/s" ! y', 'x location="***" ! y'),
        ("x location=rtsp://u:s3'cret@h/s' ! y", "x location=*** ! y"),
        ("x location=rtsp://u:s3\\ cret@h/s ! y", "x location=*** ! y"),
        ('x location="rtmp://h/s token=s3cret" ! y', 'x location="***" ! y'),
        ("x uri=rtp:u:s3cret@h ! y", "x uri=*** ! y"),
        ("x uri=rtp:u:s3cret%40h ! y", "x uri=*** ! y"),
        ("x uri=rtsp://u:s3cret%40h/s ! y", "x uri=rtsp://*** ! y"),
        ("x/y,token=s3cret ! y", "*** ! y"),
        # An URL as an element, and what is none of all that.
        ("rtsp://u:s3cret@h/s ! y", "rtsp://***@h/s ! y"),
        (
            'v4l2src device="/dev/video0" ! video/x-raw,format=BGR,framerate=30/1 ! y',
            'v4l2src device="/dev/video0" ! video/x-raw,format=BGR,framerate=30/1 ! y',
        ),
    ],
)
def test_secrets_of_a_pipeline(pipeline: str, shown: str) -> None:
    assert redacted_pipeline(pipeline) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # A name with a space, an umlaut or a digit in front is none.
        ("front door=rtsp://u:s3cret@h/s", "front door=rtsp://***@h/s"),
        ("Tür=rtsp://u:s3cret@h/s", "Tür=rtsp://***@h/s"),
        ("1=rtsp://u:s3cret@h/s", "1=rtsp://***@h/s"),
        (" rtsp://u:s3cret@h/s", " rtsp://***@h/s"),
        ("door= rtsp://h/s?s3cret", "door= rtsp://h/s?***"),
        # Slips.
        ("rtsp:/u:s3cret@h/s", "***@h/s"),
        ("u:s3c@ret@10.0.0.7/s.mp4", "***@10.0.0.7/s.mp4"),
        ("rtsp//s3cret@h/s", "***@h/s"),
        ("rtsp:/u:s3cret%4010.0.0.7/s", "***@10.0.0.7/s"),
        ("u:s3c%40ret%40h/s", "***@h/s"),
        ("http:/h/s?token=s3cret", "***"),
        ("x user-pw=s3cret!appsink", "x user-pw=***"),
        ("x user-pw=s3cret location=rtsp://u:s3cret@h/s", "x user-pw=*** location=rtsp://***@h/s"),
        (
            "rtspsrc location=rtsp://u:s3cret@h/s !appsink",
            "rtspsrc location=rtsp://***@h/s !appsink",
        ),
    ],
)
def test_no_secret_of_what_is_no_address(text: str, shown: str) -> None:
    with pytest.raises(SourceError) as refused:
        parse_address(text)
    assert str(refused.value) == f"no source goes by that name: required {FORMS}, found {shown!r}"


@pytest.mark.parametrize("url", ["rtsp://s3c/ret@h/s", "rtsp://bob:12/3@h/s", "http://s3c%40h/v"])
def test_no_part_of_a_secret_becomes_a_name(url: str) -> None:
    address = parse_address(url)
    assert (address.name, address.shown) == ("stream", f"{url.partition(':')[0]}://***")
    assert parse_address(f"door={url}").name == "door"


def test_a_path_may_hold_what_an_address_holds(tmp_path: Path) -> None:
    video = tmp_path / "u:p@h.mp4"
    video.touch()
    assert parse_address(str(video)).shown == str(video)
    assert parse_address("me@home/x.mp4").shown == "me@home/x.mp4"


def test_no_secret_in_a_representation() -> None:
    address = parse_address("door=rtsp://user:s3cret@h/s?t=s3cret")
    assert repr(address) == "Address(name='door', kind='url', shown='rtsp://***@h/s?***')"
    assert "s3cret" not in f"{address} {address.open()!r} {address.open().name}"


def test_a_name_that_is_not_utf8_can_be_printed() -> None:
    address = parse_address(os.fsdecode(b"/dev/v4l/\xff"))
    assert address.shown == "/dev/v4l/\ufffd"


HAS_GSTREAMER = cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)


def test_a_pipeline_needs_an_appsink() -> None:
    with pytest.raises(SourceError) as refused:
        Pipeline("videotestsrc ! fakesink")
    assert str(refused.value) == (
        "the pipeline videotestsrc ! fakesink hands out no frames: required appsink at its end"
    )


@pytest.mark.skipif(HAS_GSTREAMER, reason="OpenCV has GStreamer")
def test_a_pipeline_where_opencv_has_no_gstreamer(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError) as refused:
        open_source("rtspsrc location=rtsp://u:s3cret@h/s ! decodebin ! appsink")
    assert str(refused.value) == (
        "the pipeline rtspsrc location=rtsp://***@h/s ! decodebin ! appsink cannot be run: "
        "required an OpenCV with GStreamer, as on Jetson, "
        f"found OpenCV {cv2.__version__} without it. Packages from PyPI have none: "
        "use the system's OpenCV, a /dev/video device or a URL."
    )
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not HAS_GSTREAMER, reason="OpenCV has no GStreamer")
def test_a_pipeline_gives_frames() -> None:
    text = "videotestsrc ! video/x-raw,width=96,height=64 ! videoconvert ! appsink"
    with open_source(text) as source:
        frame = next(iter(source))
    assert frame.image.shape == (64, 96, 3)
