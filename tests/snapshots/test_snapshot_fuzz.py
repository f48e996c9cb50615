"""A thousand snapshot files, each wrong in one way: refused in words, or the very same memory."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.engines.views import host_array
from hermes_edge.errors import SettingsError, SnapshotError
from hermes_edge.runtime import Runtime, Session
from hermes_edge.runtime.restoring import Restored, restore_session
from hermes_edge.snapshots import SnapshotFile, SnapshotRecord
from hermes_edge.snapshots.file import digest_of, write_snapshot
from hermes_edge.snapshots.layout import (
    HEADER_START,
    LOGITS,
    WAITING_FRAMES,
    WAITING_TIMES,
    cache_names,
    row_names,
    seal_of,
    tensor_places,
)
from tests.snapshots.streams import ask, frame, new_session

SEEDS = 1000
MOST_GROWN_BYTES = 64 << 20

Tensors = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def runtime(random_bundle: Path) -> Runtime:
    return Runtime.load(random_bundle, threads=1)


@pytest.fixture(scope="module")
def good(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory with summaries, an open chunk, a frame that waits and a conversation."""
    session = new_session(runtime)
    for index in range(18):
        session.feed(frame(index), 0.5 * index)
    ask(session, "What was number 18?")
    session.feed(frame(18), 9.0)
    path = tmp_path_factory.mktemp("fuzz") / "good.safetensors"
    session.save(path)
    with SnapshotFile(path) as file:
        record = file.record
    assert (record.frames_in_chunk, record.waiting_frames, record.compactions) == (2, 1, 3)
    return path


def flipped(chance: random.Random, content: bytes) -> bytes:
    """One to three bits."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        damaged[chance.choice([chance.randrange(len(content)), chance.randrange(2000)])] ^= (
            1 << chance.randrange(8)
        )
    return bytes(damaged)


def cut(chance: random.Random, content: bytes) -> bytes:
    """The end is missing."""
    return content[: chance.choice([chance.randrange(len(content)), chance.randrange(200)])]


def lengthened(chance: random.Random, content: bytes) -> bytes:
    """Something follows, or the file stands there twice."""
    return content + chance.choice([b"\0", bytes(8), content, chance.randbytes(4096)])


def overwritten(chance: random.Random, content: bytes) -> bytes:
    """A page of noise, of zeros, or from elsewhere in the file."""
    start = chance.randrange(len(content))
    size = min(chance.choice([16, 512, 4096]), len(content) - start)
    elsewhere = chance.randrange(len(content) - size)
    page = chance.choice(
        [chance.randbytes(size), bytes(size), content[elsewhere : elsewhere + size]]
    )
    return content[:start] + page + content[start + size :]


def other_length(chance: random.Random, content: bytes) -> bytes:
    """Another length of the header."""
    length = chance.choice([0, 1, 2, 100, 1 << 20, (1 << 20) + 1, 1 << 40, (1 << 64) - 1])
    return length.to_bytes(8, "little") + content[8:]


def sealed(text: bytes, rest: bytes) -> bytes:
    """A file of this header, whatever is in it, with a checksum that is right."""
    header = len(text).to_bytes(8, "little") + text
    start = 8 + len(HEADER_START)
    return header[:start] + seal_of(header).encode() + header[start + 64 :] + rest


WRONG: list[Any] = [
    *(-1, 0, 1 << 31, 1 << 62, (1 << 63) - 1, 10**300, 1e308, float("nan"), float("inf"), 1.5),
    *(True, None, "", "x", "-1", [], {}, [[]], {"a": 1}, "\ud800", "F99", ["a"]),
    *("\x1b[31m\n", "x" * 100_000),
]


def edited(chance: random.Random, content: bytes) -> bytes:
    """A value of header or record replaced, left out or added, and the checksum made right."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    record = json.loads(header["__metadata__"]["record"])
    document: Any = chance.choice([header, record, record])
    where = document
    while True:
        items = [*where] if isinstance(where, dict) else [*range(len(where))]
        key = chance.choice(items)
        if not isinstance(where[key], (dict, list)) or not where[key] or chance.random() < 0.1:
            break
        where = where[key]
    action = chance.choice(["put", "put", "put", "gone", "more", "deep"])
    if action == "put":
        where[key] = chance.choice([value for value in WRONG if value != where[key]])
    elif action == "gone":
        del where[key]
    elif action == "more" and isinstance(where, dict):
        where["more"] = chance.choice(WRONG)
    else:
        where[key] = "DEEP"
    if document is record:
        text = json.dumps(record, separators=(",", ":")).replace('"DEEP"', "[" * 20_000)
        header["__metadata__"]["record"] = text
    text = json.dumps(header, separators=(",", ":")).replace('"DEEP"', "[" * 20_000)
    return sealed(text.encode(), content[8 + length :])


def respelled(chance: random.Random, content: bytes) -> bytes:
    """The same header in another spelling, and the checksum made right."""
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length]
    spelled = chance.choice(
        [
            text + b" " * 8,
            text.rstrip() + b"\n" * 8,
            text.replace(b'"frames\\":16', b'"frames\\": 16', 1) + b" ",
            text.replace(b'"dtype":"I64"', b'"dtype":"I64","dtype":"I64"', 1),
            text.replace(b'"I64"', b'"\\u004964"', 1),
            text.replace(b'"format_version":"2"', b'"format_version":"1"'),
        ]
    )
    return sealed(spelled, content[8 + length :])


BYTES: list[Callable[[random.Random, bytes], bytes]] = [
    *(flipped, flipped, flipped, cut, lengthened, overwritten, other_length),
    *(edited, edited, edited, respelled),
]


def other_record(chance: random.Random, record: SnapshotRecord, tensors: Tensors) -> SnapshotRecord:
    """A record that fits its schema and is not that of the memory."""
    options = record.options
    assert record.conversation is not None
    changes: dict[str, Any] = chance.choice(
        [
            {"frames": record.frames + chance.choice([-1, 1, 1000])},
            {"frames_in_chunk": record.frames_in_chunk + chance.choice([-1, 1])},
            {"chunks": record.chunks + 1},
            {"compactions": record.compactions - 1},
            {"newest_s": record.newest_s + chance.choice([-0.25, 0.25, 1e9])},
            {"newest_age_s": record.newest_age_s + chance.choice([0.25, 1e9])},
            {"stream": "another"},
            {"bundle": "0" * 64},
            {"bands": record.bands[::-1]},
            {"bands": ("all",) * 10},
            {"conversation": None},
            {"conversation": record.conversation.model_copy(update={"answer": "no"})},
            *(
                {"options": options.model_copy(update=update)}
                for update in (
                    {"policy": "window"},
                    {"policy": "hermes-released"},
                    {"policy": "none"},
                    {"scoring": "embedding"},
                    {"reindexing": "eager"},
                    {"budget_tokens": options.budget_tokens + 16},
                    {"budget_tokens": 1},
                    {"budget_tokens": 1 << 30},
                    {"chunk_frames": 8},
                    {"chunk_frames": 1 << 30},
                    {"reserve_tokens": 255},
                    {"workspace_bytes": 1 << 20},
                    {"prefix_ids": options.prefix_ids[::-1]},
                    {"prefix_ids": (-1,) * len(options.prefix_ids)},
                    {"own_probes": True},
                )
            ),
        ]
    )
    return record.model_copy(update=changes)


def other_tensors(
    chance: random.Random, record: SnapshotRecord, tensors: Tensors
) -> SnapshotRecord:
    """Tensors exchanged or changed in place."""
    layer = chance.randrange(10)
    position, shown, times, weight = (tensors[name] for name in row_names(layer))
    keys, values = cache_names(layer)
    other = cache_names((layer + chance.randint(1, 9)) % 10)
    row = chance.randrange(21, len(position))

    def swap(*pairs: tuple[str, str]) -> None:
        for one, two in pairs:
            tensors[one], tensors[two] = tensors[two], tensors[one]

    def noise(name: str) -> None:
        random_rows = np.random.default_rng(chance.randrange(1 << 30))
        tensors[name][row] = random_rows.standard_normal(tensors[name].shape[1:])

    def put(array: np.ndarray[Any, Any], *wrong: float) -> None:
        array[chance.choice([0, row, -1])] = chance.choice(wrong)

    changes: list[Callable[[], object]] = [
        lambda: swap((keys, values)),
        lambda: swap((keys, other[0]), (values, other[1])),
        lambda: noise(keys),
        lambda: noise(values),
        lambda: tensors.update({keys: tensors[keys][::-1].copy()}),
        lambda: tensors.update({values: np.zeros_like(tensors[values])}),
        lambda: put(tensors[values], float("nan"), 1e30),
        lambda: put(position, -1, 0, 1 << 62, (1 << 63) - 1, 5000),
        lambda: tensors.update({row_names(layer)[0]: position + 1}),
        lambda: put(shown, -3, -1, 0, 18, 1 << 62, (1 << 63) - 1),
        lambda: put(times, float("nan"), -1.0, 1e300, 4.0),
        lambda: put(weight, 0, -1, 2, 1 << 62, (1 << 63) - 1),
        lambda: put(tensors[LOGITS], float("nan"), float("inf"), 3.0),
        lambda: tensors.update({LOGITS: np.zeros_like(tensors[LOGITS])}),
        lambda: put(tensors[WAITING_TIMES], float("nan"), -1.0, 8.0, 1e300),
        lambda: tensors.update({WAITING_FRAMES: tensors[WAITING_FRAMES] ^ 1}),
    ]
    chance.choice(changes)()
    return record


def memory_of(session: Session) -> list[bytes]:
    store = session._parts.store
    waiting = session._parts.frames.waiting_frames() if session._parts.frames else None
    assert waiting is not None
    return [
        *(host_array(v).tobytes() for n in range(10) for v in store.committed(n)),
        *(a.tobytes() for r in store.rows for a in (r.position, r.frame, r.time, r.weight)),
        *(waiting.frames.tobytes(), waiting.times.tobytes()),
    ]


def fault_of(runtime: Runtime, path: Path) -> str | Restored:
    try:
        return restore_session(runtime, path, None, None, {})
    except (SnapshotError, SettingsError) as error:
        return str(error)


def test_bytes_that_were_not_written(runtime: Runtime, good: Path, tmp_path: Path) -> None:
    """Damage of every kind, and headers written by hand under a checksum that is right."""
    content, path = good.read_bytes(), tmp_path / "damaged.safetensors"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faults = []
    for seed in range(SEEDS // 5 * 4):
        chance = random.Random(seed)
        damaged = chance.choice(BYTES)(chance, content)
        path.write_bytes(damaged)
        fault = fault_of(runtime, path)
        if damaged == content:
            assert isinstance(fault, Restored)
            continue
        assert isinstance(fault, str), seed
        assert fault.startswith(str(path)) and len(fault) < 1000 and fault.isprintable(), seed
        faults.append(fault)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < MOST_GROWN_BYTES
    for part in ("is not a snapshot", "of the header", "of layers.", "another format version"):
        assert any(part in fault for fault in faults), part
    for part in ("a record that fits", "a header as it is written", "that its record leads to"):
        assert any(part in fault for fault in faults), part


def test_files_that_were_put_together_otherwise(
    runtime: Runtime, good: Path, tmp_path: Path
) -> None:
    """All checksums are right: they contradict themselves, or the probe refuses them."""
    path = tmp_path / "forged.safetensors"
    with SnapshotFile(good) as file:
        record = file.record
        cache = {name for layer in range(10) for name in cache_names(layer)}
        tensors = {
            name: file.raw(name).view(np.float32).reshape(place.shape)
            if name in cache
            else file.array(name)
            for name, place in tensor_places(record).items()
        }
    digests = {name: digest_of(tensor) for name, tensor in tensors.items()}
    faults = []
    for seed in range(SEEDS // 5):
        chance = random.Random(seed)
        copies = {name: tensor.copy() for name, tensor in tensors.items()}
        forged = chance.choice([other_record, other_tensors])(chance, record, copies)
        write_snapshot(path, forged, copies.values())
        fault = fault_of(runtime, path)
        changed = {name for name, tensor in copies.items() if digest_of(tensor) != digests[name]}
        if forged == record and not changed:
            assert isinstance(fault, Restored)
            continue
        assert isinstance(fault, str), (seed, changed, forged)
        assert fault.startswith(str(path)), seed
        faults.append(fault)
    for part in ("cannot be restored", "does not compute", "is of another bundle"):
        assert any(part in fault for fault in faults), part


def test_the_file_itself_is_restored(runtime: Runtime, good: Path) -> None:
    restored = restore_session(runtime, good, None, None, {})
    assert memory_of(restored.session) == memory_of(runtime.restore(good))
    assert restored.probe_deviation == 0.0
