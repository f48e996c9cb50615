"""Arguments of another type, refused where they are handed in, before anything is opened."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hermes_edge.errors import SettingsError, SourceError
from hermes_edge.sources import (
    Camera,
    Capture,
    ImageFolder,
    Pipeline,
    UrlStream,
    VideoFile,
    open_source,
    parse_address,
)

URL = "rtsp://127.0.0.1:1/x"
NO_TEXT = "is not text: required text, found"
NO_FPS = "fps is not a number: required a number, from 1e-06, below 1000, or None, found"
NO_TIME = "_timeout_s is not a number: required a number, above 0 s, found"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4, 3), np.uint8))
    return tmp_path


def refusal(call: Callable[..., object], *args: Any, **options: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        call(*args, **options)
    return str(refused.value)


@pytest.mark.parametrize("call", [open_source, parse_address])
@pytest.mark.parametrize("slip", [None, 5, True, 1.5, b"rtsp://u:s3cret@h/x", ["u:s3cret@h"]])
def test_an_address_that_is_no_text(call: Callable[[Any], object], slip: Any) -> None:
    """A number is no open file's, and what may hold a password is not quoted."""
    kind = type(slip).__name__
    assert refusal(call, slip) == f"address {NO_TEXT} a value of type {kind}"


@pytest.mark.parametrize("slip", [None, 5, b"rtsp://u:s3cret@h/x"])
def test_urls_and_pipelines_that_are_no_text(slip: Any) -> None:
    kind = type(slip).__name__
    assert refusal(UrlStream, slip) == f"url {NO_TEXT} a value of type {kind}"
    assert refusal(Pipeline, slip) == f"pipeline {NO_TEXT} a value of type {kind}"


@pytest.mark.parametrize("slip", [None, 5, b"a.mp4", ["a.mp4"]])
def test_paths_that_are_none(slip: Any) -> None:
    assert refusal(VideoFile, slip) == f"path {NO_TEXT} {slip!r}"
    assert refusal(ImageFolder, slip) == f"path {NO_TEXT} {slip!r}"
    assert refusal(Camera, slip) == f"device {NO_TEXT} {slip!r}"


@pytest.mark.parametrize("slip", ["3", True, b"3", [3], 1j])
def test_rates_that_are_no_number(folder: Path, slip: Any) -> None:
    for address in (str(folder), folder, "missing.mp4", "cam0", URL):
        assert refusal(open_source, address, fps=slip) == f"{NO_FPS} {slip!r}"
    assert refusal(parse_address("door=cam0").open, slip) == f"{NO_FPS} {slip!r}"


@pytest.mark.parametrize("rate", [np.float32(0.5), np.int64(2), Fraction(1, 2)])
def test_rates_of_every_kind_of_number(folder: Path, rate: Any) -> None:
    (frame,) = ImageFolder(folder, rate)
    assert frame.time_s == 0


@pytest.mark.parametrize("name", ["open", "read"])
@pytest.mark.parametrize("slip", ["a", None, True])
def test_timeouts_that_are_no_number(name: str, slip: Any) -> None:
    options = {f"{name}_timeout_s": slip}
    assert refusal(UrlStream, URL, **options) == f"{name}{NO_TIME} {slip!r}"
    assert refusal(Pipeline, "x ! appsink", **options) == f"{name}{NO_TIME} {slip!r}"


@pytest.mark.parametrize("timeout_s", [0, -1.0, math.nan])
def test_timeouts_that_are_over_at_once(timeout_s: float) -> None:
    assert refusal(UrlStream, URL, open_timeout_s=timeout_s) == (
        f"open_timeout_s is out of range: required above 0 s, found {float(timeout_s)}"
    )


@pytest.mark.parametrize("timeout_s", [math.inf, 1e12, 1e-9])
def test_timeouts_that_opencv_has_no_number_for(timeout_s: float) -> None:
    source = UrlStream(URL, open_timeout_s=timeout_s, read_timeout_s=timeout_s)
    with pytest.raises(SourceError, match="gives no video"):
        next(source.grabs())


def test_a_back_off_that_is_none() -> None:
    wrong: Any = 2
    expected = "backoff is of another type: required an instance of Backoff, found 2"
    assert refusal(UrlStream, URL, backoff=wrong) == expected
    assert refusal(Camera, "/dev/video0", backoff=wrong) == expected


@pytest.mark.parametrize("slip", [None, "a.mp4", 5])
def test_a_capture_of_no_source(slip: Any) -> None:
    assert refusal(Capture, slip) == (
        f"source is of another type: required an instance of Source, found {slip!r}"
    )


def test_what_a_capture_calls_and_sets(folder: Path) -> None:
    source = ImageFolder(folder)
    required = "is no function: required a function, found 3"
    assert refusal(Capture, source, prepare=3) == f"prepare {required}"
    assert refusal(Capture, source, clock=3) == f"clock {required}"
    assert refusal(Capture, source, wake=3) == (
        "wake is of another type: required an instance of Event, found 3"
    )
    no_policy: Any = ""
    with pytest.raises(SourceError) as refused:
        Capture(source, no_policy)
    assert str(refused.value) == (
        "no such back-pressure policy: required latest, every, adaptive, block, found "
    )
    assert source.counts.frames_read == 0


@pytest.mark.parametrize("slip", ["1", True, math.nan])
def test_a_wait_that_is_no_number(folder: Path, slip: Any) -> None:
    with Capture(ImageFolder(folder)) as capture:
        assert refusal(capture.next_frame, slip) == (
            f"timeout_s is not a number: required seconds, or None to wait for ever, found {slip!r}"
        )
        assert capture.next_frame(math.inf) is not None
