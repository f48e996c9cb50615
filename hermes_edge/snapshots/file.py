"""A snapshot file: written in one pass, read with every byte compared with its digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from hermes_edge.arguments import path_of
from hermes_edge.errors import SnapshotError
from hermes_edge.snapshots.layout import (
    FORMAT_VERSION,
    HEADER_START,
    LOGITS,
    MOST_HEADER_BYTES,
    TensorPlace,
    header_bytes,
    probe_ids,
    seal_of,
    stored_seal,
    tensor_places,
)
from hermes_edge.snapshots.record import SnapshotRecord, shown
from hermes_edge.storage import open_regular, writing_whole

Array = npt.NDArray[Any]

_BLOCK_BYTES = 1 << 20
_DTYPES = {"F64": np.float64, "I64": np.int64, "F32": np.float32, "U8": np.uint8}


def raw_bytes(array: Array) -> memoryview:
    """The array's bytes, whatever its dtype; copied only where it is not contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def digest_of(array: Array) -> str:
    """Hex sha256 of the array's bytes."""
    return hashlib.sha256(raw_bytes(array)).hexdigest()


def write_snapshot(path: str | Path, record: SnapshotRecord, tensors: Iterable[Array]) -> int:
    """Write a snapshot beside ``path`` and rename it.

    Args:
        path: the file; one that is there is replaced whole.
        record: what is saved.
        tensors: those of :func:`tensor_places`, in its order; each is asked for when the one
            before has been written, so that one at a time is enough.

    Returns:
        Bytes of the file.

    Raises:
        StorageError: it cannot be written; what was there before stays.
        SnapshotError: the record is longer than any reader takes.
        SettingsError: it is no path.
    """
    digests: dict[str, str] = {}
    head = header_bytes(record, digests)
    if len(head) - 8 > MOST_HEADER_BYTES:
        raise SnapshotError(
            "the memory's record is too long, and nobody could restore it",
            required=f"at most {MOST_HEADER_BYTES} bytes",
            found=len(head) - 8,
            fix="Ask a shorter question",
        )
    fix = "Make room, or choose another folder"
    with writing_whole(path_of("path", path), fix) as file:
        file.write(head)
        for (name, place), tensor in zip(tensor_places(record).items(), tensors, strict=True):
            data = raw_bytes(tensor)
            if data.nbytes != place.nbytes:
                raise ValueError(f"{name} of {data.nbytes} bytes instead of {place.nbytes}")
            digests[name] = hashlib.sha256(data).hexdigest()
            file.write(data)
        nbytes = file.tell()
        file.seek(0)
        file.write(header_bytes(record, digests))
    return nbytes


class SnapshotFile:
    """An open snapshot whose header has been checked; :meth:`read` checks every tensor.

    Attributes:
        path: the file.
        record: what it says of itself.
        digests: sha256 of every tensor, by name.
        nbytes: size of the file.
    """

    def __init__(self, path: str | Path) -> None:
        """Open and check.

        Raises:
            SnapshotError: there is no such file, it is none, of another version, or damaged.
            SettingsError: it is no path.
        """
        self.path = path_of("path", path)
        try:
            self._file = open_regular(self.path)
        except OSError as error:
            raise SnapshotError(f"cannot read {path}", found=error.strerror) from None
        try:
            self.nbytes = os.fstat(self._file.fileno()).st_size
            self.record, self.digests = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SnapshotFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def probe_ids(self) -> tuple[int, ...]:
        """Token ids whose logits are stored."""
        return probe_ids(self.record, self.digests)

    def check(self) -> None:
        """Read every tensor once, a block at a time: a header may promise more than fits.

        Raises:
            SnapshotError: one is damaged.
        """
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        for name, place in self._places.items():
            digest = hashlib.sha256()
            for start in range(place.start, place.stop, _BLOCK_BYTES):
                block = buffer[: place.stop - start]
                self._read_into(block, self._data_start + start)
                digest.update(block)
            self._compare(name, digest.hexdigest())

    def check_stream(self, stream: str) -> None:
        """Refuse the memory of another stream than the one whose name the file has.

        Raises:
            SnapshotError: it is.
        """
        if self.record.stream != stream:
            raise SnapshotError(
                f"{self.path} is of another stream",
                required=stream,
                found=self.record.stream,
                fix="Restore the file itself, not its folder, or give it its stream's name back",
            )

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """A tensor's bytes, for dtypes that numpy does not have.

        Raises:
            SnapshotError: they are not what was saved, or there is no memory for them.
        """
        place = self._places[name]
        try:
            data = np.empty(place.nbytes, dtype=np.uint8)
        except MemoryError:
            raise SnapshotError(
                f"there is no memory to read {name} of {self.path}",
                required=f"room for {place.nbytes} bytes",
                fix="End other programs, or restore an older snapshot",
            ) from None
        self._read_into(data.data, self._data_start + place.start)
        self._compare(name, hashlib.sha256(data.data).hexdigest())
        return data

    def array(self, name: str) -> Array:
        """A tensor in its shape; not for keys and values.

        Raises:
            SnapshotError: as of :meth:`raw`.
        """
        place = self._places[name]
        return self.raw(name).view(_DTYPES[place.dtype]).reshape(place.shape)

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits float32 [V] of the last row of the probe.

        Raises:
            SnapshotError: they are not what was saved.
        """
        return self.array(LOGITS)

    def _compare(self, name: str, found: str) -> None:
        if found != self.digests[name]:
            self._damaged(f"sha256 {self.digests[name]} of {name}", found)

    def _read_header(self) -> tuple[SnapshotRecord, dict[str, str]]:
        length = bytearray(8)
        if self.nbytes < 8 + len(HEADER_START):
            self._refuse(f"{self.nbytes} bytes")
        self._read_into(memoryview(length), 0)
        header_length = int.from_bytes(length, "little")
        if header_length > min(MOST_HEADER_BYTES, self.nbytes - 8):
            self._refuse(f"a header of {header_length} bytes in a file of {self.nbytes}")
        whole = bytearray(8 + header_length)
        self._read_into(memoryview(whole), 0)
        header = bytes(whole)
        if not header.startswith(HEADER_START, 8):
            self._refuse("another header")
        if (found := seal_of(header)) != stored_seal(header):
            self._damaged(f"sha256 {shown(stored_seal(header))} of the header", found)
        record, digests = self._parse(header)
        self._places: dict[str, TensorPlace] = tensor_places(record)
        self._data_start = len(header)
        required = len(header) + max(place.stop for place in self._places.values())
        if required != self.nbytes:
            self._damaged(f"{required} bytes", f"{self.nbytes}")
        return record, digests

    def _parse(self, header: bytes) -> tuple[SnapshotRecord, dict[str, str]]:
        try:
            metadata: dict[str, str] = json.loads(header[8:])["__metadata__"]
            version = metadata["format_version"]
            if version != str(FORMAT_VERSION):
                raise SnapshotError(
                    f"{self.path} has another format version",
                    required=FORMAT_VERSION,
                    found=reprlib.repr(version),
                    fix="Restore it with the hermes-edge that saved it",
                )
            record = SnapshotRecord.model_validate_json(metadata["record"])
            for name, entries in (("rows", record.rows), ("bands", record.bands)):
                if len(entries) != record.geometry.layers:
                    required = f"{name} of {record.geometry.layers} layers"
                    self._damaged(required, f"{len(entries)}")
            digests = {name: metadata[f"sha256 {name}"] for name in tensor_places(record)}
            for name, digest in digests.items():
                if not re.fullmatch("[0-9a-f]{64}", digest):
                    self._damaged(f"a sha256 of {name}", reprlib.repr(digest))
            same = header_bytes(record, digests) == header
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            # An entry that there should not be has any name.
            self._damaged("a record that fits its schema", f"{shown(where)}: {fault['msg']}")
        # RecursionError: a header may nest more deeply than Python parses.
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            self._damaged(
                "a header as it is written", f"{type(error).__name__}: {shown(str(error))}"
            )
        if not same:
            self._damaged("the header that its record leads to", "another")
        return record, digests

    def _read_into(self, buffer: memoryview, start: int) -> None:
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._file.fileno(), [buffer[done:]], start + done)
            except OSError as error:
                raise SnapshotError(f"cannot read {self.path}", found=error.strerror) from None
            if count == 0:
                self._damaged(f"{start + len(buffer)} bytes", f"{start + done}")
            done += count

    def _refuse(self, found: str) -> NoReturn:
        raise SnapshotError(
            f"{self.path} is not a snapshot", required="a file that save() wrote", found=found
        )

    def _damaged(self, required: str, found: str) -> NoReturn:
        raise SnapshotError(
            f"{self.path} is damaged",
            required=required,
            found=found,
            fix="Restore an older snapshot; hermes-edge snapshot list FOLDER shows what is there",
        )
