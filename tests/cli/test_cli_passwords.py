"""An address in place of a name, number, path or time: its password is in no message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hermes_edge.errors import HermesEdgeError, SettingsError
from hermes_edge.quoting import hidden, quoted, without_logins
from hermes_edge.settings import load_settings

Cli = Callable[..., tuple[int, str, str]]

URL = "rtsp://admin:s3cr3t@127.0.0.1:9/x"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--stream-budget", f"{URL}=2000"], 2, "found 'rtsp://***@127.0.0.1:9/x=***'"),
        (["--stream-budget", URL], 2, "found 'rtsp://***@127.0.0.1:9/x'"),
        (["--stream-budget", "rtsp://admin:s3cr3t=2"], 2, "found 'rtsp://***'"),
        (["--stream-budget", f"shapes={URL}"], 2, "unknown budget: "),
        (["--ask", f"{URL}@0:12 Who?"], 2, "unknown stream: required shapes, found 'rtsp://***'"),
        (["--ask", "rtsp://admin:12@3 s3cr3t@h/x@0:12 A?"], 2, "found 'rtsp://***'"),
        (["--ask", URL], 2, "--ask 'rtsp://***@127.0.0.1:9/x' has no time: "),
        (["--ask", f"{URL}@0:12"], 9, "--ask 'rtsp://***' has no question: "),
        (["--backpressure", URL], 2, "--backpressure: required latest, every, adaptive or block, "),
        (["--budget", URL], 2, "--budget: required tokens such as 4000, "),
        (["--memory-limit", URL], 2, "--memory-limit: required bytes such as 64MiB or 0.5GiB, "),
        (["--save-every", URL], 2, "--save-every: required a duration such as 500ms, "),
        (["--config", URL], 2, "cannot read the settings file ***@127.0.0.1:9/x: "),
        (["--device", URL], 2, "unknown device: required cpu, cuda or cuda:N, "),
        (["--policy", "rtsp://a:s3cr3t@127.0.0.1:9/x"], 2, "unknown policy: "),
    ],
)
def test_flags_of_run(run: Cli, args: list[str], code: int, words: str) -> None:
    for more in ([], ["--log-json"]):
        found, stdout, stderr = run(*args, *more)
        assert (found, stdout) == (code, "")
        assert words in stderr
        assert "s3c" not in stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["run", "shapes.avi", "--bundle", URL], 8, ""),
        (["inspect", URL], 4, "rtsp:/***@127.0.0.1:9/x is not a bundle: "),
        (["verify", "BUNDLE", "--target", URL], 2, "found 'rtsp://***@127.0.0.1:9/x'"),
        (["export", URL, "-o", "b"], 3, "there is no folder rtsp:/***@127.0.0.1:9/x: "),
        (["snapshot", "show", URL], 12, "cannot read rtsp:/***@127.0.0.1:9/x: "),
        (["snapshot", "list", ".", "--stream", URL], 12, "no snapshot of the stream rtsp://***"),
        (["plan", "BUNDLE", "--device", "this", "--frame-size", URL], 2, "found rtsp://***"),
        (["plan", "BUNDLE", "--device", "this", "--budget", URL], 2, "found 'rtsp://***'"),
    ],
)
def test_other_verbs(random_bundle: Path, cli: Cli, args: list[str], code: int, words: str) -> None:
    found, stdout, stderr = cli(*(str(random_bundle) if a == "BUNDLE" else a for a in args))
    assert (found, stdout) == (code, "")
    assert words in stderr
    assert "s3cr3t" not in stderr


@pytest.mark.parametrize(
    "name",
    [
        "backpressure",
        "backend",
        "scoring",
        "budget",
        "memory_limit",
        "save_every",
        "fps",
        "log_json",
    ],
)
def test_passwords_in_values_are_hidden(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> str:
        with pytest.raises(SettingsError) as caught:
            load_settings(flags)
        return str(caught.value)

    flags: dict[str, object] = {name: URL}
    assert told().endswith(", found 'rtsp://***'")
    flags = {}
    monkeypatch.setenv(f"HERMES_EDGE_{name.upper()}", URL)
    assert told().endswith(", found 'rtsp://***'")
    monkeypatch.delenv(f"HERMES_EDGE_{name.upper()}")
    for value in (f'"{URL}"', f'["{URL}"]', '{a = "admin:s3cr3t@h"}', '"user-pw=s3cr3t"'):
        (tmp_path / "hermes-edge.toml").write_text(f"{name} = {value}\n")
        message = told()
        assert message.startswith(f"{name} in the settings file: required ")
        assert "***" in message
        assert "s3cr3t" not in message


@pytest.mark.parametrize(
    ("content", "begin"),
    [
        (f'"{URL}" = 1', "unknown key in hermes-edge.toml: 'rtsp://***'. "),
        (f'["{URL}"]\n["{URL}"]', "the settings file hermes-edge.toml is damaged: required TOML, "),
    ],
)
def test_passwords_in_keys_are_hidden(content: str, begin: str, tmp_path: Path) -> None:
    (tmp_path / "hermes-edge.toml").write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_settings({})
    assert str(caught.value).startswith(begin)
    assert "s3cr3t" not in str(caught.value)


def test_a_password_in_place_of_a_file() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": Path("rtsp://admin:s3cr3t 2@127.0.0.1/x")})
    assert str(caught.value) == (
        "cannot read the settings file ***@127.0.0.1/x: found No such file or directory"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, "rtsp://***"),
        ("admin:s3 cr3t@h/x", "***@h/x"),
        ("admin:s3cr3t%40h/x", "***@h/x"),
        ("rtspsrc user-pw=s3cr3t ! appsink", "rtspsrc user-pw=***"),
        ("/home/me@work/run=5/s.toml", "/home/me@work/run=5/s.toml"),
        ("64MB", "64MB"),
    ],
)
def test_text_of_a_user(text: str, shown: str) -> None:
    assert (hidden(text), quoted(text)) == (shown, repr(shown))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            f"no folder {URL}, or {URL}",
            "no folder rtsp://***@127.0.0.1:9/x, or rtsp://***@127.0.0.1:9/x",
        ),
        ("rtsp:/admin:s3cr3t@h is none", "rtsp:/***@h is none"),
        ("found 'rtsp://admin:s3cr3t'", "found 'rtsp://***'"),
        ("found 'rtsp://a:s3c...7.0.0.1:9/x'", "found 'rtsp://***'"),
        (
            "http://***@h:1/x, http://h:80/x, http://h:80",
            "http://***@h:1/x, http://h:80/x, http://h:80",
        ),
        ("http://[::1]:80/x or rtsp://", "http://[::1]:80/x or rtsp://"),
        ("a@b: c", "a@b: c"),
    ],
)
def test_messages(message: str, shown: str) -> None:
    assert without_logins(message) == shown
    assert str(HermesEdgeError(message)) == shown
    assert str(HermesEdgeError("x", found=message)) == f"x: found {shown}"
    # What is required is the program's own.
    form = "scheme://user:password@host"
    assert str(HermesEdgeError("x", required=form)) == f"x: required {form}"
