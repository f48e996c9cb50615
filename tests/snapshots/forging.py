"""Files that were put together by hand, every checksum right or in its right form."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from hermes_edge.snapshots import SnapshotFile, SnapshotRecord
from hermes_edge.snapshots.file import write_snapshot
from hermes_edge.snapshots.layout import header_bytes, tensor_places


def forge(path: Path, source: Path, place: str = "", number: float = 0, **update: object) -> Path:
    """A snapshot with another record, and the last number of one of its tensors exchanged."""
    with SnapshotFile(source) as file:
        record, places = file.record, tensor_places(file.record)
        tensors = {tensor: file.raw(tensor) for tensor in places}
    if place:
        dtype = np.float64 if places[place].dtype == "F64" else np.int64
        tensors[place].view(dtype)[-1] = number
    path.unlink(missing_ok=True)  # it may be a link to one that others read
    write_snapshot(path, record.model_copy(update=update), tensors.values())
    return path


def write_sparse(path: Path, record: SnapshotRecord) -> int:
    """A header alone, and a hole of the size that it promises; bytes of the file."""
    head = header_bytes(record, {})
    nbytes = len(head) + max(place.stop for place in tensor_places(record).values())
    path.unlink(missing_ok=True)
    path.write_bytes(head)
    os.truncate(path, nbytes)
    return nbytes
