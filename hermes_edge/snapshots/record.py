"""What a snapshot says of the memory in it; the tensors of its file follow from this."""

from __future__ import annotations

import re
import reprlib
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from hermes_edge.errors import SettingsError

Count = Annotated[int, Field(ge=0, le=1 << 40)]
Size = Annotated[int, Field(ge=1, le=1 << 31)]
# Positions are rotated in float32, which tells no more of them apart.
Rows = Annotated[int, Field(ge=0, le=1 << 24)]
# 30,000 years; sums and differences of such times stay finite.
Seconds = Annotated[float, Field(ge=0, le=1e12)]
BandName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

STREAM_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
StreamName = Annotated[str, StringConstraints(pattern=rf"^{STREAM_NAME}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StreamOptions(_Record):
    """What a session was made with, defaults filled in.

    Attributes:
        budget_tokens: visual rows that each layer may keep.
        chunk_frames: frames between two compactions.
        prefix_ids: token ids before the video.
        own_probes: whether the caller gave probes; they are a function and cannot be saved.

    All else as in ``Runtime.session``.
    """

    policy: str
    scoring: str | None
    reindexing: str | None
    smoothing: str | None
    budget_tokens: Size
    chunk_frames: Size
    reserve_tokens: Size
    workspace_bytes: int
    prefix_ids: tuple[int, ...]
    own_probes: bool


class Geometry(_Record):
    """Shapes of the tensors: L layers of rows [Hkv, D], logits [V], frames [side, side, 3]."""

    layers: Annotated[int, Field(ge=1, le=1024)]
    kv_heads: Size
    head_size: Size
    dtype: Literal["F32", "F16", "BF16"]
    vocabulary: Size
    image_size: Count
    """0 where the bundle has no vision graph."""


class Conversation(_Record):
    """The last question and its answer, which condition the probes of the chunks to come."""

    question: str
    answer: str


class SnapshotRecord(_Record):
    """A memory at one moment, less its tensors.

    Attributes:
        saved_at: wall clock of the moment.
        stream: name of the stream.
        model_id: of the bundle; for people.
        bundle: identity of the bundle, ``Manifest.identity``.
        bands: of each layer, as the policy has them.
        rows: committed rows of each layer, prefix included.
        frames: encoded since the stream began; the next frame has this index.
        frames_in_chunk: encoded since the last chunk closed.
        chunks, compactions: since the stream began.
        newest_s: time of the newest frame.
        newest_age_s: from the capture of the newest frame to ``saved_at``; of a source that is
            away they drift apart.
        waiting_frames: fed and not encoded yet.
    """

    saved_at: AwareDatetime
    stream: StreamName
    model_id: str
    bundle: Sha256
    geometry: Geometry
    options: StreamOptions
    bands: tuple[BandName, ...]
    rows: tuple[Rows, ...]
    frames: Count
    frames_in_chunk: Count
    chunks: Count
    compactions: Count
    newest_s: Seconds
    newest_age_s: Seconds
    waiting_frames: Count
    conversation: Conversation | None


def shown(text: str) -> str:
    """Text of a file as a message quotes it: what is odd in it escaped, what is long cut short."""
    return text if len(text) <= 200 and text.isprintable() else reprlib.repr(text)


def check_stream_name(name: object, fix: str | None = None) -> str:
    """The same name.

    Raises:
        SettingsError: it cannot be a part of a file's name; ``fix`` is what helps.
    """
    if not isinstance(name, str) or re.fullmatch(STREAM_NAME, name, re.A) is None:
        raise SettingsError(
            "the stream's name cannot be used in a file name",
            required="1 to 100 of A-Z a-z 0-9 _ - . (neither - nor . in front)",
            found=ascii(name),
            fix=fix,
        )
    return name


def now() -> datetime:
    """The wall clock, to the millisecond, as it stands in records and file names."""
    moment = datetime.now(timezone.utc)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
