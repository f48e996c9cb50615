"""What a stream is run with: flag, then environment, then file, then default.

    hermes-edge run --budget 2000       the flag wins over
    HERMES_EDGE_BUDGET=64MiB            the environment, which wins over
    budget = 4000                       hermes-edge.toml, or the file of --config, which wins over
    Settings.budget                     the default

Unknown names are refused in the file and in the environment: a misspelt key would otherwise be a
setting that silently does nothing.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from hermes_edge.errors import SettingsError
from hermes_edge.quoting import hidden, quoted
from hermes_edge.units import (
    BUDGET_FORM,
    BYTES_FORM,
    DURATION_FORM,
    Budget,
    parse_budget,
    parse_bytes,
    parse_duration,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT_PREFIX = "HERMES_EDGE_"
# Names the traces that the test suite reads.
_NOT_A_SETTING = ENVIRONMENT_PREFIX + "GOLDEN"
DEFAULT_FILE = Path("hermes-edge.toml")


def _to_budget(value: object) -> object:
    if value is None or isinstance(value, Budget):
        return value
    try:
        return parse_budget(str(value))
    except SettingsError as error:
        raise ValueError(str(error)) from None


def _to_bytes(value: object) -> object:
    try:
        return parse_bytes(str(value), "size")
    except SettingsError as error:
        raise ValueError(str(error)) from None


def _to_seconds(value: object) -> object:
    try:
        return parse_duration(str(value))
    except SettingsError as error:
        raise ValueError(str(error)) from None


def _to_strings(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Seconds = Annotated[float, NoDecode, BeforeValidator(_to_seconds)]

_SWITCH = {"true": True, "false": False}
_SWITCH_FORM = "true or false"


class Settings(BaseSettings):
    """All settings of a stream; a field's description is what its value must be."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
    )

    config: Path | None = Field(default=None, description="a path")
    bundle: Path | None = Field(default=None, description="a path")
    policy: str = Field(default="hermes", description="the name of a policy")
    scoring: Literal["forward", "embedding"] | None = Field(
        default=None, description="forward or embedding"
    )
    reindexing: Literal["lazy", "eager"] | None = Field(default=None, description="lazy or eager")
    smoothing: Literal["recursive", "one-step"] | None = Field(
        default=None, description="recursive or one-step"
    )
    budget: Annotated[Budget | None, NoDecode, BeforeValidator(_to_budget)] = Field(
        default=None, description=BUDGET_FORM
    )
    stream_budget: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_to_strings)] = Field(
        default=(), description="NAME=BUDGET or a list of them"
    )
    fps: float = Field(default=0.5, gt=0, lt=1000, description="a number above 0, below 1000")
    chunk_frames: int | None = Field(default=None, ge=1, description="a whole number, at least 1")
    reserve_tokens: int = Field(default=512, ge=1, description="a whole number, at least 1")
    slice_workspace: Annotated[int, NoDecode, BeforeValidator(_to_bytes)] = Field(
        default=64 << 20, validate_default=False, description=BYTES_FORM
    )
    system: str | None = Field(default=None, description="text")
    max_tokens: int = Field(default=256, ge=1, description="a whole number, at least 1")
    temperature: float = Field(default=0.0, ge=0, description="a number, 0 (greedy) or more")
    top_p: float = Field(default=1.0, gt=0, le=1, description="a number above 0 and at most 1")
    repetition_penalty: float = Field(
        default=1.0, gt=0, description="a number above 0 (1 for none)"
    )
    seed: int | None = Field(default=None, ge=0, description="a whole number, 0 or more")
    stop: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_to_strings)] = Field(
        default=(), description="a text or a list of texts"
    )
    device: str = Field(default="cpu", description="cpu, cuda or cuda:N")
    backend: Literal["onnxruntime", "tensorrt"] = Field(
        default="onnxruntime", description="onnxruntime or tensorrt"
    )
    threads: int = Field(default=0, ge=0, description="a whole number, 0 (all cores) or more")
    memory_limit: Annotated[int | None, NoDecode, BeforeValidator(_to_bytes)] = Field(
        default=None, validate_default=False, description=BYTES_FORM
    )
    backpressure: Literal["latest", "every", "adaptive", "block"] | None = Field(
        default=None, description="latest, every, adaptive or block"
    )
    skip_still: bool = Field(default=False, description=_SWITCH_FORM)
    snapshots: Path | None = Field(default=None, description="a path")
    save_every: Seconds = Field(default=60.0, validate_default=False, description=DURATION_FORM)
    keep: int = Field(default=3, ge=1, description="a whole number, at least 1")
    silent_after: Seconds = Field(default=30.0, validate_default=False, description=DURATION_FORM)
    engine_timeout: Seconds = Field(
        default=300.0, validate_default=False, description=DURATION_FORM
    )
    metrics_port: int | None = Field(default=None, ge=1, le=65535, description="a port, 1 to 65535")
    metrics_address: str = Field(default="127.0.0.1", description="an address of this machine")
    log_json: bool = Field(default=False, description=_SWITCH_FORM)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_values_for_switches_alone(cls, value: object, info: ValidationInfo) -> object:
        # Otherwise true would count as the number 1, and 1 as true.
        switch = cls.model_fields[str(info.field_name)].annotation is bool
        if switch and isinstance(value, str) and value.lower() in _SWITCH:
            return _SWITCH[value.lower()]
        if switch != isinstance(value, bool):
            raise ValueError("a truth value, or none")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, file: the first that has a value wins."""
        return init_settings, env_settings, _TomlFile(settings_cls)


class _TomlFile(PydanticBaseSettingsSource):
    """The file that flag or environment name; else the default one, if it is there."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """One field's value, its name, and that it is no JSON; the base class asks for this."""
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return _read_file(_file_path(self.current_state.get("config")))


def load_settings(flags: Mapping[str, object]) -> Settings:
    """Settings from all sources.

    Args:
        flags: by the names of the fields; None stands for a flag that was not given.

    Raises:
        SettingsError: an unknown name, a value that is out of range (all are listed, each with its
            source), or a file that cannot be read.
    """
    _check_names(
        (
            name
            for name in os.environ
            if name.upper().startswith(ENVIRONMENT_PREFIX) and name != _NOT_A_SETTING
        ),
        [ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields],
        "environment variable",
    )
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise _as_settings_error(error, given) from None


def _file_path(config: object) -> Path | None:
    if config is not None:
        return Path(str(config))
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def _read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    shown = hidden(str(path))
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise SettingsError(
            f"cannot read the settings file {shown}", found=error.strerror
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"the settings file {shown} is not text",
            required="UTF-8",
            found=f"byte 0x{error.object[error.start]:02x} at offset {error.start}",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"the settings file {shown} is damaged", required="TOML", found=hidden(str(error))
        ) from None
    known = [name for name in Settings.model_fields if name != "config"]
    _check_names(document, known, f"key in {shown}")
    return document


def _check_names(names: Iterable[str], known: list[str], kind: str) -> None:
    unknown = sorted(name for name in names if name not in known)
    if not unknown:
        return
    faults = []
    for name in unknown:
        cased = name.upper() if known[0].isupper() else name.lower().replace("-", "_")
        near = difflib.get_close_matches(cased, known, n=1, cutoff=0.7)
        faults.append(quoted(name) + (f" (did you mean {near[0]!r}?)" if near else ""))
    raise SettingsError(
        f"unknown {kind}: {', '.join(faults)}", fix=f"Known are: {', '.join(known)}"
    )


def _as_settings_error(error: ValidationError, flags: Mapping[str, object]) -> SettingsError:
    faults = []
    for fault in error.errors():
        name = str(fault["loc"][0])
        field = Settings.model_fields[name]
        faults.append((_origin(name, flags), field.description, quoted(fault["input"])))
    if len(faults) == 1:
        problem, required, found = faults[0]
        return SettingsError(problem, required=required, found=found)
    return SettingsError("; ".join(f"{p}: required {r}, found {f}" for p, r, f in faults))


def _origin(name: str, flags: Mapping[str, object]) -> str:
    if name in flags:
        return f"--{name.replace('_', '-')}"
    variable = ENVIRONMENT_PREFIX + name.upper()
    if os.environ.get(variable):
        return f"the environment variable {variable}"
    return f"{name} in the settings file"
