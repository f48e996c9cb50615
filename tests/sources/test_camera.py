"""Cameras, as far as a machine without one can tell."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hermes_edge.errors import SourceError
from hermes_edge.sources import Camera, Capture, open_source

NOBODY = 65534


def refusal(address: str) -> str:
    with Capture(open_source(address)) as capture, pytest.raises(SourceError) as refused:
        capture.next_frame(20)
    return str(refused.value)


def test_a_camera_that_is_not_there() -> None:
    cameras = sorted(map(str, Path("/dev").glob("video*")))
    assert refusal("cam977") == (
        f"/dev/video977 does not exist: found {', '.join(cameras) or 'no camera'}. "
        "Check that it is plugged in."
    )


NO_CAMERA = (
    " gives no video: required a V4L2 device that captures, and that no other program uses. "
    "List them with: v4l2-ctl --list-devices (a USB camera's second node is metadata)."
)


def test_a_device_that_is_no_camera(capfd: pytest.CaptureFixture[str]) -> None:
    assert refusal("/dev/null") == "/dev/null" + NO_CAMERA
    assert capfd.readouterr().err == ""


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.touch()
    for none in (path, tmp_path):
        with pytest.raises(SourceError) as refused:
            next(Camera(none).grabs())
        assert str(refused.value) == str(none) + NO_CAMERA


@pytest.mark.skipif(os.geteuid() != 0, reason="making a device needs root")
def test_a_camera_that_is_not_permitted(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # root's alone
    except PermissionError:
        pytest.skip("no device can be made here, not even by root")
    tmp_path.parent.parent.chmod(0o755)
    tmp_path.parent.chmod(0o755)
    tmp_path.chmod(0o755)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(SourceError) as refused:
            next(Camera(path).grabs())
    finally:
        os.seteuid(0)
    assert str(refused.value) == (
        f"cannot open the camera {path}: found Permission denied. "
        'sudo usermod -aG video "$USER", then log in again'
    )
