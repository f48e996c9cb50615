"""Sessions on a decoder for static decoding: whole slabs, fixed addresses, the same results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from hermes_edge.contract import GraphName, decoder_graph, past_key, past_value, present_key
from hermes_edge.engines import Bundle, CpuDevice, Engine, View, host_view
from hermes_edge.engines.views import Array, host_array
from hermes_edge.memory.base import LayerRows
from hermes_edge.runtime import ProbeTokens, Runtime, SamplingParams, Session

TOKENS_PER_FRAME, WIDTH, LAYERS = 8, 128, 10
PREFIX = (7, 11, 13)
QUESTION = (21, 22, 23, 24)
ANSWER = SamplingParams(max_new_tokens=6)

Bound = Mapping[str, View]


class Recorded:
    """A static decoder that writes down what is bound to it."""

    def __init__(self, engine: Engine) -> None:
        self.graph = engine.graph
        self.calls: list[tuple[Bound, Bound]] = []
        self._engine = engine

    def run(self, inputs: Bound, outputs: Bound) -> None:
        self.calls.append((dict(inputs), dict(outputs)))
        self._engine.run(inputs, outputs)

    def steps(self) -> list[tuple[tuple[int, tuple[int, ...]], ...]]:
        """Addresses and shapes of every call of one row."""
        return [
            tuple((view.address, view.shape) for view in (*inputs.values(), *outputs.values()))
            for inputs, outputs in self.calls
            if len(inputs["inputs_embeds"]) == 1
        ]


class Growing:
    """The same graph behind the surface of a decoder without options: cut rows are bound."""

    def __init__(self, engine: Engine, bundle: Bundle) -> None:
        self._engine = engine
        self.graph = decoder_graph(bundle.manifest.decoder, bundle.manifest.precision)

    def run(self, inputs: Bound, outputs: Bound) -> None:
        given = dict(inputs)
        visible = bool(host_array(given.pop("past_visible"))[0])
        rows = np.array([visible * len(given[past_key(layer)]) for layer in range(LAYERS)])
        self._engine.run({**given, "past_rows": host_view(rows)}, outputs)


class Backend:
    """ONNX Runtime on one thread, with a decoder that is wrapped."""

    def __init__(self, wrap: Callable[[Engine, Bundle], Engine]) -> None:
        self.device = CpuDevice()
        self._wrap = wrap

    def engine(self, bundle: Bundle, name: GraphName) -> Engine:
        engine = bundle.engine(name, threads=1)
        return self._wrap(engine, bundle) if name == "decoder" else engine


@pytest.fixture(scope="module")
def recorded(static_bundle: Path) -> Recorded:
    return Recorded(Bundle.open(static_bundle).engine("decoder", threads=1))


@pytest.fixture(scope="module")
def static(static_bundle: Path, recorded: Recorded) -> Runtime:
    return Runtime(Bundle.open(static_bundle), Backend(lambda engine, bundle: recorded))


@pytest.fixture(scope="module")
def growing(static_bundle: Path) -> Runtime:
    return Runtime(Bundle.open(static_bundle), Backend(Growing))


def open_session(
    runtime: Runtime, policy: str = "hermes", prefix: tuple[int, ...] = PREFIX
) -> Session:
    return runtime.session(
        budget_tokens=48,
        policy=policy,
        chunk_frames=2,
        reserve_tokens=32,
        prefix_ids=prefix,
        probes=lambda last: ProbeTokens((31, 32, 33), (41, 42)),
    )


def feed(session: Session, chunk: int) -> None:
    random = np.random.default_rng(chunk)
    tokens = random.standard_normal((2 * TOKENS_PER_FRAME, WIDTH), dtype=np.float32)
    session.feed_tokens(tokens, at=[2.0 * chunk, 2.0 * chunk + 1])


def committed(session: Session) -> list[Array]:
    store = session._parts.store
    return [host_array(view).copy() for layer in range(LAYERS) for view in store.committed(layer)]


@pytest.mark.parametrize("policy", ["hermes", "window", "random"])
def test_a_stream_is_remembered_and_answered_as_by_rows_that_grow(
    static: Runtime, growing: Runtime, policy: str
) -> None:
    ours, theirs = open_session(static, policy), open_session(growing, policy)
    for chunk in range(9):
        for session in (ours, theirs):
            feed(session, chunk)
        for mine, other in zip(ours.rows(), theirs.rows(), strict=True):
            np.testing.assert_array_equal(mine.position, other.position)
            np.testing.assert_array_equal(mine.frame, other.frame)
        for slab, required in zip(committed(ours), committed(theirs), strict=True):
            np.testing.assert_allclose(slab, required, rtol=1e-4, atol=1e-5)
        if chunk % 2:
            before = committed(ours)
            answers = [session.ask(QUESTION, ANSWER) for session in (ours, theirs)]
            assert answers[0].token_ids == answers[1].token_ids
            assert len(answers[0].token_ids) == 6
            for slab, required in zip(committed(ours), before, strict=True):
                np.testing.assert_array_equal(slab, required)
    assert ours.timings().compactions > 3


def test_logits_of_a_step_are_those_of_cut_rows(static: Runtime, growing: Runtime) -> None:
    """Of layers that hold equally many rows, and of layers that do not."""
    logits = []
    for runtime in (static, growing):
        session = open_session(runtime)
        for chunk in range(5):
            feed(session, chunk)
        store, runner = session._parts.store, session._parts.runner
        found = []
        for lost in (0, 5):
            # Layer 9 has six rows left in the end.
            for layer, rows in enumerate(store.rows):
                left = slice(len(rows) - lost * layer)
                store.rows[layer] = LayerRows(
                    rows.position[left], rows.frame[left], rows.time[left], rows.weight[left]
                )
            for token in QUESTION:
                embeds = static._factory._table.lookup([token])
                last, _ = runner.run(store, (embeds,), want_logits=True)
                store.scratch_rows += 1
                found.append(last)
            store.scratch_rows = 0
        logits.append(np.stack([array for array in found if array is not None]))
    assert logits[0].shape == (8, 96)
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5)


def test_steps_bind_the_same_addresses_until_slabs_are_swapped(
    static: Runtime, recorded: Recorded
) -> None:
    session = open_session(static)
    for chunk in range(4):
        feed(session, chunk)
    capacity = session.memory().capacity_rows
    assert capacity == 3 + 48 + 16 + 32
    seen = []
    for chunk in range(4, 6):
        recorded.calls.clear()
        for _ in range(2):
            session.ask(QUESTION, ANSWER)
        steps = recorded.steps()
        assert len(steps) >= 6 and len(set(steps)) == 1
        seen.append(steps[0])
        for inputs, outputs in recorded.calls:
            if len(inputs["inputs_embeds"]) == 1:
                assert {inputs[past_value(n)].shape for n in range(LAYERS)} == {(capacity, 2, 32)}
                assert outputs[present_key(0)].address % 256 == 0
            else:
                # A question's own rows are bound as ever: cut, and appended in place.
                assert len(inputs[past_key(0)]) == 51
        feed(session, chunk)
    assert seen[0] != seen[1]


def test_whatever_lies_behind_the_memory_changes_nothing(static: Runtime) -> None:
    session = open_session(static)
    for chunk in range(5):
        feed(session, chunk)
    first = session.ask(QUESTION, ANSWER)
    before = committed(session)
    store = session._parts.store
    for layer in range(LAYERS):
        for view in store.slab(layer):
            host_array(view)[len(store.rows[layer]) :] = 1e4
    assert session.ask(QUESTION, ANSWER).token_ids == first.token_ids
    for mine, other in zip(committed(session), before, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_memory_that_begins_with_a_single_row(static: Runtime, growing: Runtime) -> None:
    """The first row is a step on an empty memory: nobody sees what the slabs hold."""
    rows = []
    for runtime in (static, growing):
        session = open_session(runtime, prefix=(7,))
        rows.append(committed(session))
    assert len(rows[0][0]) == 1
    for mine, other in zip(*rows, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_a_warm_session_has_stepped_twice(static: Runtime, recorded: Recorded) -> None:
    """What replays calls captures the second: a device that cannot shall fail at the start."""
    static._factory._warm.clear()
    recorded.calls.clear()
    open_session(static)
    steps = recorded.steps()
    assert len(steps) == 2 and steps[0] == steps[1]
