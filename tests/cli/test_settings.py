"""Settings: which source wins, and what is refused with which words."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hermes_edge.errors import SettingsError
from hermes_edge.settings import Settings, _TomlFile, load_settings
from hermes_edge.units import Budget, parse_budget, parse_duration, parse_time

CONFIGS = Path(__file__).parents[2] / "configs"


def test_flag_wins_over_environment_over_file_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings({}).fps == 0.5
    (tmp_path / "hermes-edge.toml").write_text("fps = 1\nmax_tokens = 7\nseed = 3\n")
    monkeypatch.setenv("HERMES_EDGE_FPS", "2")
    monkeypatch.setenv("HERMES_EDGE_SEED", "4")
    settings = load_settings({"fps": 3.0, "seed": None})
    assert (settings.fps, settings.seed, settings.max_tokens) == (3.0, 4, 7)


def test_file_of_the_flag_wins_over_that_of_the_environment_over_the_default_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, fps in (("hermes-edge", 1), ("environment", 2), ("flag", 3)):
        (tmp_path / f"{name}.toml").write_text(f"fps = {fps}\n")
    assert load_settings({}).fps == 1
    monkeypatch.setenv("HERMES_EDGE_CONFIG", "environment.toml")
    assert load_settings({}).fps == 2
    assert load_settings({"config": Path("flag.toml")}).fps == 3


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_EDGE_SEED", "")
    assert load_settings({}).seed is None


def test_one_stop_text_needs_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hermes-edge.toml").write_text('stop = ["a", "b"]\n')
    assert load_settings({}).stop == ("a", "b")
    monkeypatch.setenv("HERMES_EDGE_STOP", "[x")
    assert load_settings({}).stop == ("[x",)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("4000", Budget(4000, None)),
        ("64MiB", Budget(None, 64 << 20)),
        ("0.5GiB", Budget(None, 1 << 29)),
        ("512 kib", Budget(None, 512 << 10)),
    ],
)
def test_budget(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert load_settings({"budget": text}).budget == budget


@pytest.mark.parametrize("value", ["4000", "-1", "0", "1.5"])
def test_bytes_have_a_unit_in_the_file_too(value: str, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f"slice_workspace = {value}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": path})
    assert str(caught.value) == (
        "slice_workspace in the settings file: required bytes such as 64MiB or 0.5GiB, "
        f"found {value}"
    )


def test_bytes_of_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings({}).slice_workspace == 64 << 20
    assert load_settings({"slice_workspace": "1MiB"}).slice_workspace == 1 << 20
    monkeypatch.setenv("HERMES_EDGE_SLICE_WORKSPACE", "4000")
    with pytest.raises(SettingsError) as caught:
        load_settings({})
    assert str(caught.value) == (
        "the environment variable HERMES_EDGE_SLICE_WORKSPACE: required bytes such as 64MiB or "
        "0.5GiB, found '4000'"
    )


@pytest.mark.parametrize("text", ["", "0", "0MiB", "-1", "1.5", "64MB", "1e3", "many", "9" * 5000])
def test_bad_budget(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_budget(text)
    assert str(caught.value) == (
        "unknown budget: required tokens such as 4000, or bytes such as 64MiB or 0.5GiB, "
        f"found {text!r}"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:12", 12.0),
        ("1:02:03", 3723.0),
        ("75:00", 4500.0),
        ("12", 12.0),
        ("0:01.5", 1.5),
        ("90", 90.0),
        ("end", math.inf),
    ],
)
def test_time(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "1:60", "1:60:00", "-1", "1:2:3:4", "soon", "nan", "٣"])
def test_bad_time(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_time(text)
    assert str(caught.value) == (
        f"unknown time: required M:SS, H:MM:SS, seconds or end, found {text!r}"
    )


@pytest.mark.parametrize(
    ("flag", "value", "required"),
    [
        ("fps", 0.0, "a number above 0, below 1000"),
        ("fps", math.nan, "a number above 0, below 1000"),
        ("fps", math.inf, "a number above 0, below 1000"),
        ("fps", 1e308, "a number above 0, below 1000"),
        ("chunk_frames", 0, "a whole number, at least 1"),
        ("reserve_tokens", 0, "a whole number, at least 1"),
        ("max_tokens", 0, "a whole number, at least 1"),
        ("temperature", -0.1, "a number, 0 (greedy) or more"),
        ("top_p", 1.1, "a number above 0 and at most 1"),
        ("repetition_penalty", 0.0, "a number above 0 (1 for none)"),
        ("seed", -1, "a whole number, 0 or more"),
        ("threads", -1, "a whole number, 0 (all cores) or more"),
        ("budget", "64MB", "tokens such as 4000, or bytes such as 64MiB or 0.5GiB"),
        ("memory_limit", "2", "bytes such as 64MiB or 0.5GiB"),
        ("save_every", "60", "a duration such as 500ms, 60s, 5min or 2h"),
        ("save_every", 60.0, "a duration such as 500ms, 60s, 5min or 2h"),
        ("keep", 0, "a whole number, at least 1"),
        ("metrics_port", 0, "a port, 1 to 65535"),
        ("metrics_port", 65536, "a port, 1 to 65535"),
        ("skip_still", "1", "true or false"),
        ("skip_still", 1, "true or false"),
        ("log_json", "yes", "true or false"),
    ],
)
def test_flag_out_of_range(flag: str, value: object, required: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({flag: value})
    name = flag.replace("_", "-")
    assert str(caught.value) == f"--{name}: required {required}, found {value!r}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("60s", 60.0), (" 5 min ", 300.0), ("2h", 7200.0), ("0.5s", 0.5)],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "60", "0s", "-1s", "1d", "1 s s", "nan s", "infs", "٣s"])
def test_bad_duration(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_duration(text)
    assert str(caught.value) == (
        f"unknown duration: required a duration such as 500ms, 60s, 5min or 2h, found {text!r}"
    )


def test_switches_and_durations_of_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hermes-edge.toml").write_text('skip_still = true\nsave_every = "5min"\n')
    monkeypatch.setenv("HERMES_EDGE_LOG_JSON", "true")
    monkeypatch.setenv("HERMES_EDGE_SILENT_AFTER", "500ms")
    settings = load_settings({})
    assert (settings.skip_still, settings.log_json) == (True, True)
    assert (settings.save_every, settings.silent_after) == (300.0, 0.5)


def test_all_faults_are_named_with_their_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hermes-edge.toml").write_text("seed = true\n")
    monkeypatch.setenv("HERMES_EDGE_FPS", "fast")
    with pytest.raises(SettingsError) as caught:
        load_settings({"top_p": 2.0})
    assert set(str(caught.value).split("; ")) == {
        "--top-p: required a number above 0 and at most 1, found 2.0",
        "the environment variable HERMES_EDGE_FPS: required a number above 0, below 1000, "
        "found 'fast'",
        "seed in the settings file: required a whole number, 0 or more, found True",
    }


def test_unknown_key_in_the_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "hermes-edge.toml").write_text("buget = 1\nzzz = 2\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({})
    known = ", ".join(name for name in Settings.model_fields if name != "config")
    assert str(caught.value) == (
        "unknown key in hermes-edge.toml: 'buget' (did you mean 'budget'?), 'zzz'. "
        f"Known are: {known}"
    )


def test_the_file_cannot_name_another_file(tmp_path: Path) -> None:
    (tmp_path / "hermes-edge.toml").write_text('config = "other.toml"\n')
    with pytest.raises(SettingsError, match=r"^unknown key in hermes-edge\.toml: 'config'\. "):
        load_settings({})


def test_fields_of_the_file_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "hermes-edge.toml").write_text("fps = 3\n")
    source = _TomlFile(Settings)
    for name, value in (("fps", 3), ("seed", None)):
        field = Settings.model_fields[name]
        assert source.get_field_value(field, name) == (value, name, False)


def test_the_variable_of_the_test_suite_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_EDGE_GOLDEN", "/traces")
    assert load_settings({}) == Settings()


def test_unknown_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_EDGE_BUGET", "1")
    with pytest.raises(SettingsError) as caught:
        load_settings({})
    known = ", ".join(f"HERMES_EDGE_{name.upper()}" for name in Settings.model_fields)
    assert str(caught.value) == (
        "unknown environment variable: 'HERMES_EDGE_BUGET' (did you mean 'HERMES_EDGE_BUDGET'?). "
        f"Known are: {known}"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the settings file s.toml: found No such file or directory"),
        (
            b"fps = 1 # \xff",
            "the settings file s.toml is not text: required UTF-8, found byte 0xff at offset 10",
        ),
    ],
)
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "s.toml").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": Path("s.toml")})
    assert str(caught.value) == message


def test_file_that_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("fps: 1\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": Path("s.toml")})
    start = "the settings file s.toml is damaged: required TOML, found "
    assert str(caught.value).startswith(start)
    assert "line 1" in str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_example_files_load(path: Path) -> None:
    load_settings({"config": path})


def test_the_full_example_names_every_key_with_its_default() -> None:
    text = (CONFIGS / "hermes-edge.toml").read_text()
    settings = load_settings({"config": CONFIGS / "hermes-edge.toml"})
    assert settings == Settings(config=settings.config)
    for name, field in Settings.model_fields.items():
        if name != "config":
            prefix = "# " if field.default is None else ""
            assert f"\n{prefix}{name} = " in text
