"""Snapshots of next to nothing: two layers of three rows each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.errors import HermesEdgeError
from hermes_edge.snapshots import Geometry, SnapshotRecord, StreamOptions
from hermes_edge.snapshots.file import write_snapshot
from hermes_edge.snapshots.layout import ITEM_BYTES, TensorPlace, tensor_places

Array = np.ndarray[Any, Any]
Write = Callable[..., SnapshotRecord]
_DTYPES = {"F64": np.float64, "I64": np.int64, "F32": np.float32, "F16": np.float16}


def tiny_record(frames: int = 3, dtype: str = "F32") -> SnapshotRecord:
    geometry = {"layers": 2, "kv_heads": 1, "head_size": 4, "vocabulary": 5, "image_size": 2}
    options = dict.fromkeys(StreamOptions.model_fields) | {
        "policy": "window",
        "budget_tokens": 8,
        "chunk_frames": 4,
        "reserve_tokens": 16,
        "workspace_bytes": 1 << 20,
        "prefix_ids": (1,),
        "own_probes": False,
    }
    return SnapshotRecord(
        saved_at=datetime(2026, 11, 25, 13, 5, tzinfo=timezone.utc),
        stream="door",
        model_id="tiny",
        bundle="0" * 64,
        geometry=Geometry.model_validate({**geometry, "dtype": dtype}),
        options=StreamOptions.model_validate(options),
        bands=("all", "all"),
        rows=(3, 2),
        frames=frames,
        frames_in_chunk=0,
        chunks=1,
        compactions=0,
        newest_s=1.5,
        newest_age_s=0.25,
        waiting_frames=1,
        conversation=None,
    )


def tensor(place: TensorPlace, seed: int) -> Array:
    """Numbers of a dtype; of those that numpy lacks, their bytes."""
    if place.dtype not in _DTYPES:
        random = np.random.default_rng(seed)
        return random.integers(0, 256, (*place.shape, ITEM_BYTES[place.dtype]), dtype=np.uint8)
    return np.arange(seed, seed + np.prod(place.shape)).astype(_DTYPES[place.dtype])


def tiny_tensors(record: SnapshotRecord) -> Iterator[Array]:
    for seed, place in enumerate(tensor_places(record).values()):
        yield tensor(place, seed)


@pytest.fixture
def write() -> Write:
    """Write a tiny snapshot, of the stream in its name."""

    def write_tiny(path: Path, frames: int = 3, dtype: str = "F32") -> SnapshotRecord:
        stream = path.name.rpartition("-")[0] or "door"
        record = tiny_record(frames, dtype).model_copy(update={"stream": stream})
        write_snapshot(path, record, tiny_tensors(record))
        return record

    return write_tiny


@pytest.fixture
def raises() -> Callable[..., Any]:
    """As ``pytest.raises``, with the whole text."""

    def raises_text(error: type[HermesEdgeError], text: str) -> Any:
        return pytest.raises(error, match=rf"\A{re.escape(text)}\Z")

    return raises_text
