"""What a session refuses, with the text that its caller reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.contract import DType
from hermes_edge.engines.views import Array
from hermes_edge.errors import (
    BudgetError,
    HermesEdgeError,
    QuestionError,
    SettingsError,
    SourceError,
)
from hermes_edge.runtime import ProbeTokens, Runtime, SamplingParams, Session
from hermes_edge.runtime.frames import checked_tokens

VisualTokens = Callable[[int, int], Array]
Snapshot = Callable[[Session], list[bytes]]
SHORT = SamplingParams(max_new_tokens=4)
# 2,048 positions less a prefix of 21, a chunk of 256 and a reserve of 512.
MOST_TOKENS = 1259


@pytest.fixture()
def session(runtime: Runtime, visual_tokens: VisualTokens) -> Session:
    made = runtime.session(budget_tokens=128, chunk_frames=4, reserve_tokens=256)
    made.feed_tokens(visual_tokens(2, 1), 3.0)
    return made


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("", "the question is empty. Ask something"),
        (" \n", "the question is empty. Ask something"),
        ([], "the question is empty. Ask something"),
        (
            [5] * 253,
            "the question does not fit the reserve: required question and answer within "
            "256 tokens, found 253 + 4. Shorten it, lower max_new_tokens, or raise "
            "reserve_tokens of the session",
        ),
        (
            "\udcff?",
            "the question is not text: required UTF-8, found '\\udcff?'. Set a UTF-8 "
            "locale, for example LC_ALL=C.UTF-8",
        ),
        ([5, 512], "token id outside the vocabulary: required 0 to 511, found 512"),
        ([-1], "token id outside the vocabulary: required 0 to 511, found -1"),
        ([1 << 70], f"token id outside the vocabulary: required 0 to 511, found {1 << 70}"),
        (
            [5.5],
            "the question is neither text nor token ids: required text, or a list of whole "
            "numbers, found [5.5]",
        ),
    ],
)
def test_questions_that_cannot_be_asked(
    session: Session, snapshot: Snapshot, question: str | Sequence[int], text: str
) -> None:
    before = snapshot(session)
    with pytest.raises(QuestionError) as caught:
        session.ask(question, SHORT)
    assert str(caught.value) == text
    assert snapshot(session) == before
    assert len(session.ask([5], SHORT).token_ids) == 4


def test_a_question_before_any_frame(runtime: Runtime, visual_tokens: VisualTokens) -> None:
    session = runtime.session(budget_tokens=256)
    with pytest.raises(QuestionError) as caught:
        session.ask("What is it?")
    assert str(caught.value) == "nothing has been seen yet. Feed at least one frame before asking"
    session.feed_tokens(visual_tokens(1, 0), 0.0)
    assert session.ask("What is it?", SHORT).token_ids


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (2.0, "time runs backwards: required at >= 3 s, found 2 s"),
        (float("nan"), "time runs backwards: required at >= 3 s, found nan s"),
        (float("inf"), "time runs backwards: required at >= 3 s, found inf s"),
        ([3.5, 3.25], "time runs backwards: required at >= 3.5 s, found 3.25 s"),
        ([4.0], "wrong number of times: required 2, found 1"),
        ("x", "a time is not a number: required seconds, found 'x'"),
        (10**400, f"a time is not a number: required seconds, found {10**400}"),
    ],
)
def test_times_that_cannot_be(
    session: Session,
    visual_tokens: VisualTokens,
    snapshot: Snapshot,
    at: float | list[float],
    text: str,
) -> None:
    before = snapshot(session)
    with pytest.raises(SourceError) as caught:
        session.feed_tokens(visual_tokens(2, 0), at)
    assert str(caught.value) == text
    assert snapshot(session) == before
    assert session.memory().newest_s == 3.0


def test_frames_cannot_run_backwards_either(session: Session) -> None:
    with pytest.raises(SourceError, match="required at >= 3 s, found -1 s"):
        session.feed(np.zeros((32, 32, 3), dtype=np.uint8), -1.0)
    at: Any = "soon"
    with pytest.raises(SourceError) as caught:
        session.feed(np.zeros((32, 32, 3), dtype=np.uint8), at)
    assert str(caught.value) == "a time is not a number: required seconds, found 'soon'"
    assert session.memory().frames_seen == 2


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((32, 32, 3), dtype=np.float32),
        np.zeros((32, 32), dtype=np.uint8),
        np.zeros((32, 32, 4), dtype=np.uint8),
        np.zeros((0, 32, 3), dtype=np.uint8),
    ],
    ids=lambda frame: f"{frame.dtype}-{frame.ndim}d-{frame.shape[-1]}",
)
def test_frames_that_are_no_images(session: Session, frame: Any) -> None:
    with pytest.raises(SourceError) as caught:
        session.feed(frame, 4.0)
    assert "uint8" in str(caught.value.required)
    assert str(frame.dtype) in str(caught.value.found)
    assert session.memory().frames_seen == 2
    assert session.memory().newest_s == 3.0


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        (np.zeros((16, 63), np.float32), "float32 [16, 63]"),
        (np.zeros((15, 64), np.float32), "float32 [15, 64]"),
        (np.zeros((0, 64), np.float32), "float32 [0, 64]"),
        (np.zeros((1, 16, 64), np.float32), "float32 [1, 16, 64]"),
        (np.zeros((16, 64), np.int64), "int64 [16, 64]"),
    ],
)
def test_visual_tokens_of_another_shape(session: Session, tokens: Array, found: str) -> None:
    with pytest.raises(SourceError) as caught:
        session.feed_tokens(tokens, 4.0)
    assert str(caught.value) == (
        "visual tokens of another shape: required floating point [F*16, 64], F at least 1, "
        f"found {found}"
    )


@pytest.mark.parametrize(
    ("value", "found"), [(np.nan, "nan"), (-np.inf, "-inf"), (1e300, "1e+300")]
)
def test_visual_tokens_that_are_not_finite(
    session: Session, snapshot: Snapshot, value: float, found: str
) -> None:
    before = snapshot(session)
    tokens = np.zeros((16, 64))
    tokens[3, 5] = value
    with pytest.raises(SourceError) as caught:
        session.feed_tokens(tokens, 4.0)
    assert str(caught.value) == (
        "visual tokens that are not finite: required finite numbers of float32, "
        f"found {found}. Check the encoder"
    )
    assert snapshot(session) == before


@pytest.mark.parametrize(
    ("dtype", "most", "more"), [("float16", 65504.0, 1e5), ("bfloat16", 3e38, 3.4e38)]
)
def test_visual_tokens_that_a_half_precision_cannot_hold(
    dtype: DType, most: float, more: float
) -> None:
    rows = checked_tokens(np.full((16, 64), most, np.float32), (16, 64), dtype)
    assert rows.dtype == np.dtype(dtype)
    assert np.isfinite(rows).all()
    with pytest.raises(SourceError, match=f"required finite numbers of {dtype}, found "):
        checked_tokens(np.full((16, 64), more, np.float32), (16, 64), dtype)


def test_visual_tokens_that_are_no_array(session: Session) -> None:
    ragged: Any = [[1.0], [1.0, 2.0]]
    with pytest.raises(SourceError, match=r"^visual tokens are no array: required floating point"):
        session.feed_tokens(ragged, 4.0)


SMALL = "the budget is smaller than a chunk: required at least 256 tokens, found {}. Raise the "
SMALL += "budget or lower chunk_frames"
LARGE = "the budget does not fit the model's positions: required at most 1259 tokens (positions "
LARGE += "less prefix, chunk and reserve), found {}. Lower the budget, chunk_frames or "
LARGE += "reserve_tokens"

NOTHING = "nothing is left for the budget: required prefix, reserve, open chunk and a budget of at "
NOTHING += "least a chunk within 2048 positions, found prefix {}, chunk {}, reserve {}. {}"


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"budget_tokens": 255}, BudgetError, SMALL.format(255)),
        ({"budget_tokens": 0}, BudgetError, SMALL.format(0)),
        ({"budget_tokens": -7}, BudgetError, SMALL.format(-7)),
        ({"budget_bytes": 100}, BudgetError, SMALL.format(0)),
        ({"budget_tokens": MOST_TOKENS + 1}, BudgetError, LARGE.format(MOST_TOKENS + 1)),
        (
            {"budget_tokens": 256, "budget_bytes": 1 << 20},
            BudgetError,
            "two budgets: required tokens or bytes, found both",
        ),
        (
            {"chunk_frames": 0},
            SettingsError,
            "chunk_frames is out of range: required at least 1, found 0",
        ),
        (
            {"reserve_tokens": -5},
            SettingsError,
            "reserve_tokens is out of range: required at least 1, found -5",
        ),
        *(
            (
                {"workspace_bytes": nbytes},
                SettingsError,
                f"workspace_bytes is out of range: required at least 1, found {nbytes}",
            )
            for nbytes in (0, -5)
        ),
        (
            {"budget_tokens": 300.5},
            SettingsError,
            "budget_tokens is not a whole number: required a whole number, found 300.5",
        ),
        (
            {"chunk_frames": True},
            SettingsError,
            "chunk_frames is not a whole number: required a whole number, at least 1, found True",
        ),
        *(
            (
                {"prefix_ids": ids},
                SettingsError,
                f"prefix_ids are not token ids: required a list of whole numbers, found {ids!r}",
            )
            for ids in ("abc", [1.5], 7)
        ),
        (
            {"prefix_ids": [1] * 5000},
            BudgetError,
            NOTHING.format(5000, 256, 512, "Shorten the system text or prefix_ids"),
        ),
        (
            {"chunk_frames": 1000, "budget_tokens": 100},
            BudgetError,
            NOTHING.format(21, 16000, 512, "Lower chunk_frames"),
        ),
        (
            {"reserve_tokens": 1600},
            BudgetError,
            NOTHING.format(21, 256, 1600, "Lower reserve_tokens"),
        ),
        ({"system": 3}, SettingsError, "system is not text: required text, found 3"),
        ({"policy": None}, SettingsError, "policy is not text: required text, found None"),
        ({"scoring": 3}, SettingsError, "scoring is not text: required text, found 3"),
        (
            {"policy": "best"},
            SettingsError,
            "unknown policy: required hermes, hermes-released, window, uniform, random, full, "
            "found 'best'",
        ),
        (
            {"policy": "window", "scoring": "forward"},
            SettingsError,
            "the policy window has no scoring, re-indexing or smoothing to choose: "
            "required hermes or hermes-released, found window",
        ),
    ],
)
def test_sessions_that_cannot_be_made(
    runtime: Runtime, options: dict[str, Any], kind: type[HermesEdgeError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        runtime.session(**options)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"threads": 10**10},
            "threads is out of range: required at least 0, at most 1024, found 10000000000",
        ),
        ({"threads": -1}, "threads is out of range: required at least 0, at most 1024, found -1"),
        (
            {"threads": 1.5},
            "threads is not a whole number: required a whole number, at least 0, at most 1024, "
            "found 1.5",
        ),
        ({"device": None}, "device is not text: required text, found None"),
        ({"path": None}, "path is not text: required text, found None"),
        (
            {"memory_bytes": "2GiB"},
            "memory_bytes is not a whole number: required a whole number, at least 1, found '2GiB'",
        ),
    ],
)
def test_runtimes_that_cannot_be_loaded(
    random_bundle: Path, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Runtime.load(**{"path": random_bundle, **options})
    assert str(caught.value) == text


@pytest.mark.parametrize(("frames", "found"), [([], "none"), (None, "NoneType")])
def test_no_frames_to_encode(runtime: Runtime, frames: Any, found: str) -> None:
    with pytest.raises(SourceError) as caught:
        runtime.encode(frames)
    assert str(caught.value) == (
        f"no frames to encode: required a list of at least one, found {found}"
    )


def test_numbers_of_numpy_are_whole_numbers(runtime: Runtime) -> None:
    options: dict[str, Any] = {"budget_tokens": np.int64(300), "prefix_ids": np.array([1, 2])}
    session = runtime.session(**options)
    assert session.memory().budget_rows == 300


def test_the_largest_budget_can_be_made(runtime: Runtime) -> None:
    assert runtime.session(budget_tokens=MOST_TOKENS).memory().budget_rows == MOST_TOKENS
    assert runtime.session().memory().budget_rows == MOST_TOKENS


def test_a_budget_in_bytes(runtime: Runtime) -> None:
    per_token = runtime.manifest.decoder.kv_bytes_per_token(runtime.manifest.precision)
    session = runtime.session(budget_bytes=300 * per_token + 1)
    assert session.memory().budget_rows == 300


def test_a_closed_session(session: Session, visual_tokens: VisualTokens) -> None:
    with session:
        pass
    session.close()
    for call in (
        lambda: session.feed_tokens(visual_tokens(1, 0), 4.0),
        lambda: session.feed(np.zeros((32, 32, 3), dtype=np.uint8), 4.0),
        lambda: session.ask("What?"),
        session.flush,
        session.memory,
        session.rows,
    ):
        with pytest.raises(QuestionError) as caught:
            call()
        assert str(caught.value) == "the session is closed. Make a new one"


def test_a_full_memory_keeps_what_it_has_and_answers(
    runtime: Runtime, visual_tokens: VisualTokens, snapshot: Snapshot
) -> None:
    session = runtime.session(policy="full", budget_tokens=80, reserve_tokens=64)
    with pytest.raises(BudgetError) as caught:
        session.feed_tokens(visual_tokens(7, 2), [float(n) for n in range(7)])
    assert str(caught.value) == (
        "the memory is full and the policy full never evicts: required at most 80 visual tokens, "
        "found 80 stored, 16 to come. Raise the budget, or choose a policy that evicts: hermes, "
        "window, uniform"
    )
    before = snapshot(session)
    for _ in range(2):
        with pytest.raises(BudgetError, match="the memory is full"):
            session.feed(np.zeros((32, 32, 3), dtype=np.uint8), 9.0)
    assert snapshot(session) == before
    report = session.memory()
    assert (report.frames_seen, report.newest_s) == (5, 4.0)
    for rows in session.rows():
        np.testing.assert_array_equal(rows.frame[21:], np.repeat(np.arange(5), 16))
    answer = session.ask("What?", SHORT)
    assert len(answer.token_ids) == 4
    assert answer.video_time_s == 4.0


@pytest.mark.parametrize(("working", "long_term"), [(0, 0), (5, 0), (0, 5), (200, 57)])
def test_probes_that_do_not_fit_the_reserve(
    runtime: Runtime, visual_tokens: VisualTokens, working: int, long_term: int
) -> None:
    session = runtime.session(
        budget_tokens=64,
        chunk_frames=4,
        reserve_tokens=256,
        probes=lambda _: ProbeTokens((5,) * working, (6,) * long_term),
    )
    with pytest.raises(SettingsError) as caught:
        session.feed_tokens(visual_tokens(8, 2), 0.0)
    assert str(caught.value) == (
        f"the probes do not fit the reserve: required two probes of 1 to 256 tokens together, "
        f"found {working} and {long_term}. "
        "Shorten them or raise reserve_tokens"
    )
