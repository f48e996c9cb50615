"""The header of a snapshot file, byte by byte: a function of its record and its digests.

A snapshot is a safetensors file (https://github.com/huggingface/safetensors#format). Its header has
one form only, so there is nothing in it that could be changed without being another snapshot:

    8 bytes   length of the header, little endian
    header    {"__metadata__": {"format", "sha256", "format_version", "record", "sha256 NAME" ...},
              NAME: {"dtype", "shape", "data_offsets"} ...}, ASCII, no spaces but at its end
    tensors   in the order of the header, without gaps

``sha256`` is that of these 8 bytes and the header, with 64 zeros in its own place; the header holds
the sha256 of every tensor. So the header can be trusted before anything is read or allocated.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from hermes_edge.snapshots.record import SnapshotRecord

FORMAT_NAME = "hermes-edge snapshot"
FORMAT_VERSION = 2
# 64 layers with 8,000 characters of conversation take 130 kB.
MOST_HEADER_BYTES = 1 << 20
LOGITS = "probe.logits"
WAITING_FRAMES, WAITING_TIMES = "waiting.frames", "waiting.times"
ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "BF16": 2, "U8": 1}

HEADER_START = f'{{"__metadata__":{{"format":"{FORMAT_NAME}","sha256":"'.encode()
_NO_DIGEST = "0" * 64
_PROBE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """One tensor of the file; ``start`` counts from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + self.nbytes


def row_names(layer: int) -> tuple[str, str, str, str]:
    """Tensors that say what a layer's rows are."""
    return (
        f"layers.{layer}.position",
        f"layers.{layer}.frame",
        f"layers.{layer}.time",
        f"layers.{layer}.weight",
    )


def cache_names(layer: int) -> tuple[str, str]:
    """A layer's keys and values."""
    return f"layers.{layer}.keys", f"layers.{layer}.values"


def tensor_places(record: SnapshotRecord) -> dict[str, TensorPlace]:
    """All tensors in the order of the file: what is at hand, then what is copied layer by layer."""
    geometry, waiting = record.geometry, record.waiting_frames
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for layer, rows in enumerate(record.rows):
        for name, dtype in zip(row_names(layer), ("I64", "I64", "F64", "I64"), strict=True):
            shapes[name] = (dtype, (rows,))
    side = geometry.image_size
    shapes[WAITING_TIMES] = ("F64", (waiting,))
    shapes[LOGITS] = ("F32", (geometry.vocabulary,))
    for layer, rows in enumerate(record.rows):
        for name in cache_names(layer):
            shapes[name] = (geometry.dtype, (rows, geometry.kv_heads, geometry.head_size))
    shapes[WAITING_FRAMES] = ("U8", (waiting, side, side, 3))
    places: dict[str, TensorPlace] = {}
    start = 0
    for name, (dtype, shape) in shapes.items():
        places[name] = TensorPlace(dtype, shape, start)
        start = places[name].stop
    return places


def header_bytes(record: SnapshotRecord, digests: Mapping[str, str]) -> bytes:
    """Length and header, sealed; tensors without a digest get zeros, so that the size stays."""
    places = tensor_places(record)
    metadata = {
        "format": FORMAT_NAME,
        "sha256": _NO_DIGEST,
        "format_version": str(FORMAT_VERSION),
        "record": record.model_dump_json(),
        **{f"sha256 {name}": digests.get(name, _NO_DIGEST) for name in places},
    }
    tensors = {
        name: {"dtype": p.dtype, "shape": p.shape, "data_offsets": (p.start, p.stop)}
        for name, p in places.items()
    }
    document = {"__metadata__": metadata, **tensors}
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    # Tensors begin at a multiple of their items' size.
    text += b" " * (-len(text) % 8)
    unsealed = len(text).to_bytes(8, "little") + text
    digest = seal_of(unsealed).encode()
    start = 8 + len(HEADER_START)
    return unsealed[:start] + digest + unsealed[start + len(digest) :]


def seal_of(header: bytes) -> str:
    """The sha256 that a header (its length in front) must hold."""
    start = 8 + len(HEADER_START)
    rest = header[start + len(_NO_DIGEST) :]
    return hashlib.sha256(header[:start] + _NO_DIGEST.encode() + rest).hexdigest()


def stored_seal(header: bytes) -> str:
    """The sha256 that it does hold."""
    start = 8 + len(HEADER_START)
    return header[start : start + len(_NO_DIGEST)].decode("ascii", "replace")


def probe_ids(record: SnapshotRecord, digests: Mapping[str, str]) -> tuple[int, ...]:
    """Token ids of the probe, drawn from all that its logits would not depend on otherwise.

    The logits depend on keys and values because these are what the probe looks at, and on the
    record, the rows and the waiting frames because these choose the probe. So no part of a
    snapshot can be replaced without a probe that comes out otherwise.
    """
    drawn = hashlib.sha256(record.model_dump_json().encode())
    for layer in range(len(record.rows)):
        for name in row_names(layer):
            drawn.update(digests[name].encode())
    for name in (WAITING_TIMES, WAITING_FRAMES):
        drawn.update(digests[name].encode())
    words, vocabulary = drawn.digest(), record.geometry.vocabulary
    ids = [int.from_bytes(words[4 * n : 4 * n + 4], "little") for n in range(_PROBE_TOKENS)]
    # A reserve of one token has room for a probe of one.
    return tuple(id_ % vocabulary for id_ in ids[: record.options.reserve_tokens])
