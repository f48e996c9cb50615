"""However a chunk is cut into passes, the memory and the answers are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from hermes_edge.contract import past_key, past_value, present_key, present_value
from hermes_edge.engines import View
from hermes_edge.engines.views import Array, host_array, host_view
from hermes_edge.memory import probe_texts
from hermes_edge.memory.base import Float32Array, LayerRows, Plan
from hermes_edge.runtime import Runtime, SamplingParams, Session

TOKENS_PER_FRAME, CHUNK_FRAMES, CHUNKS = 16, 4, 5
MEMORY: dict[str, Any] = {
    "budget_tokens": 128,
    "chunk_frames": CHUNK_FRAMES,
    "reserve_tokens": 256,
}
# Of the guidance texts, both together.
PROBE_ROWS = 147
QUESTION = "Which shape moves?"
PARAMS = SamplingParams(max_new_tokens=8)
# fp32 passes of different shapes add up in another order.
KEY_TOLERANCE = 1e-4

VisualTokens = Callable[[int, int], Array]


def workspace_bytes(runtime: Runtime, slice_rows: int, **memory: Any) -> int:
    """The bound that gives slices of ``slice_rows`` rows."""
    spec = runtime.session(**memory)._parts.store.spec
    return slice_rows * 4 * runtime.manifest.decoder.query_heads * spec.capacity_rows


def fed_session(runtime: Runtime, tokens: Array, slice_rows: int, **memory: Any) -> Session:
    """A session with slices of ``slice_rows`` rows that has seen all of ``tokens``."""
    bound = workspace_bytes(runtime, slice_rows, **memory)
    session = runtime.session(workspace_bytes=bound, **memory)
    assert session._parts.shape.slice_rows == slice_rows
    session.feed_tokens(tokens, [0.5 * n for n in range(len(tokens) // TOKENS_PER_FRAME)])
    return session


def check_same_memory(one: Session, other: Session) -> None:
    for layer, (left, right) in enumerate(zip(one.rows(), other.rows(), strict=True)):
        for name in ("position", "frame", "time", "weight"):
            np.testing.assert_array_equal(
                getattr(left, name), getattr(right, name), err_msg=f"{name} of layer {layer}"
            )
        pairs = zip(
            one._parts.store.committed(layer), other._parts.store.committed(layer), strict=True
        )
        for ours, theirs in pairs:
            np.testing.assert_allclose(
                host_array(ours), host_array(theirs), rtol=0, atol=KEY_TOLERANCE
            )


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "hermes"},
        {"policy": "hermes-released", "scoring": "forward"},
        {"policy": "hermes-released", "scoring": "embedding"},
        {"policy": "window"},
        {"policy": "uniform"},
        {"policy": "random"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_slices_change_nothing(
    runtime: Runtime, visual_tokens: VisualTokens, options: dict[str, str]
) -> None:
    tokens = visual_tokens(CHUNKS * CHUNK_FRAMES, 1)
    memory = {**MEMORY, **options}
    # Half a frame at a time, a frame and a bit, and everything in one pass.
    sessions = [fed_session(runtime, tokens, rows, **memory) for rows in (8, 21, 4096)]
    assert sessions[0].timings().compactions > 0
    answers = [session.ask(QUESTION, PARAMS).token_ids for session in sessions]
    for session, answer in zip(sessions[1:], answers[1:], strict=True):
        check_same_memory(sessions[0], session)
        assert answer == answers[0]


class RecordingPolicy:
    """The session's policy; keeps what it was given and what it answered."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self.attention: list[Sequence[Float32Array | None]] = []
        self.plans: list[Plan | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def plan(
        self, rows: Sequence[LayerRows], attention: Sequence[Float32Array | None]
    ) -> Plan | None:
        self.attention.append(attention)
        self.plans.append(self._policy.plan(rows, attention))
        return self.plans[-1]


def recorded(runtime: Runtime, tokens: Array, slice_rows: int) -> tuple[RecordingPolicy, int]:
    """Policy with its record, and how many passes the decoder made."""
    bound = workspace_bytes(runtime, slice_rows, **MEMORY)
    session = runtime.session(workspace_bytes=bound, **MEMORY)
    encoder, runner = session._parts.encoder, session._parts.runner
    policy = RecordingPolicy(encoder._policy)
    encoder._policy = policy
    call, passes = runner._call, 0

    def counted(*args: Any) -> None:
        nonlocal passes
        passes += 1
        call(*args)

    runner._call = counted
    session.feed_tokens(tokens, 0.0)
    return policy, passes


@pytest.mark.parametrize(
    ("slice_rows", "more_passes"),
    [
        pytest.param(CHUNK_FRAMES * TOKENS_PER_FRAME, 2, id="each probe alone"),
        pytest.param(PROBE_ROWS, 1, id="both probes in one pass"),
        pytest.param(PROBE_ROWS + 1, 1, id="behind a slice cut for them"),
    ],
)
def test_probes_that_ride_score_like_probes_in_a_pass_of_their_own(
    runtime: Runtime, visual_tokens: VisualTokens, slice_rows: int, more_passes: int
) -> None:
    codec = runtime.codec
    assert codec is not None
    assert sum(len(codec.encode(text)) for text in probe_texts()) == PROBE_ROWS
    tokens = visual_tokens(CHUNKS * CHUNK_FRAMES, 2)
    chunk_rows = CHUNK_FRAMES * TOKENS_PER_FRAME
    separate, separate_passes = recorded(runtime, tokens, slice_rows)
    riding, riding_passes = recorded(runtime, tokens, chunk_rows + 256)
    scored = sum(any(a is not None for a in chunk) for chunk in riding.attention)
    assert riding_passes == CHUNKS
    assert separate_passes == CHUNKS + scored * more_passes
    assert scored == CHUNKS - MEMORY["budget_tokens"] // chunk_rows
    for one, other in zip(riding.attention, separate.attention, strict=True):
        for left, right in zip(one, other, strict=True):
            assert (left is None) == (right is None)
            if left is not None and right is not None:
                np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-7)
    for ours, theirs in zip(riding.plans, separate.plans, strict=True):
        assert (ours is None) == (theirs is None)
        for a, b in zip(ours or (), theirs or (), strict=True):
            np.testing.assert_array_equal(a.keep, b.keep)
            np.testing.assert_array_equal(a.fold, b.fold)
            np.testing.assert_array_equal(a.position, b.position)


def one_pass_logits(runtime: Runtime, embeds: Array) -> Array:
    """Logits [V] of the last of T rows, all of them in one call on empty caches."""
    decoder, count = runtime.manifest.decoder, len(embeds)
    positions = np.tile(np.arange(count, dtype=np.int64), (decoder.layers, 1))
    queries = (decoder.layers, 0, decoder.query_heads, decoder.head_size)
    arrays: dict[str, Array] = {
        "inputs_embeds": np.ascontiguousarray(embeds, dtype=np.float32),
        "position_ids": positions,
        "segment_ids": np.zeros(count, dtype=np.int64),
        "logit_rows": np.array([count - 1], dtype=np.int64),
        "probe_rows": np.empty(0, dtype=np.int64),
        "past_visible": np.array([False]),
    }
    logits = np.zeros((1, decoder.vocabulary), dtype=np.float32)
    results = {"logits": logits, "probe_queries": np.empty(queries, dtype=np.float32)}
    head = (decoder.kv_heads, decoder.head_size)
    for layer in range(decoder.layers):
        for past, present in (
            (past_key(layer), present_key(layer)),
            (past_value(layer), present_value(layer)),
        ):
            arrays[past] = np.ones((1, *head), dtype=np.float32)
            results[present] = np.zeros((count, *head), dtype=np.float32)
    inputs: dict[str, View] = {name: host_view(array) for name, array in arrays.items()}
    outputs = {name: host_view(array) for name, array in results.items()}
    runtime.bundle.engine("decoder", threads=1).run(inputs, outputs)
    last: Array = logits[0]
    return last


def test_a_full_memory_equals_one_pass_over_everything(
    runtime: Runtime, visual_tokens: VisualTokens
) -> None:
    tokens = visual_tokens(9, 3)
    session = runtime.session(policy="full", budget_tokens=256, reserve_tokens=64)
    for frame, at in enumerate(range(9)):
        rows = slice(frame * TOKENS_PER_FRAME, (frame + 1) * TOKENS_PER_FRAME)
        session.feed_tokens(tokens[rows], float(at))
    assert runtime.codec is not None
    table = runtime.bundle.embeddings()
    question = runtime.codec.question_ids(QUESTION)
    prefix = runtime.codec.prefix_ids(None)
    reference = one_pass_logits(
        runtime, np.concatenate([table.lookup(prefix), tokens, table.lookup(question)])
    )
    parts = session._parts
    logits, _ = parts.runner.run(parts.store, (table.lookup(question),), want_logits=True)
    assert logits is not None
    assert np.abs(reference).max() > 0.1
    np.testing.assert_allclose(logits, reference, rtol=0, atol=1e-4)
    answer = session.ask(QUESTION, SamplingParams(max_new_tokens=1))
    assert answer.token_ids == (int(reference.argmax()),)


@pytest.mark.parametrize("behind", [0, 5])
def test_slices_leave_room_and_lose_nothing(runtime: Runtime, behind: int) -> None:
    encoder = runtime.session(
        workspace_bytes=workspace_bytes(runtime, 8, **MEMORY), **MEMORY
    )._parts.encoder
    for count in range(30):
        rows = np.arange(count)[:, None]
        slices = encoder._slices(rows, behind)
        assert all(0 < len(part) <= 8 for part in slices)
        assert not slices or len(slices[-1]) + behind <= 8
        np.testing.assert_array_equal(np.concatenate([rows[:0], *slices]), rows)
