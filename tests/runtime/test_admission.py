"""Streams that do not fit are refused before their memory is made."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest

from hermes_edge.engines.views import CpuDevice
from hermes_edge.errors import BudgetError, QuestionError
from hermes_edge.runtime import Runtime, Session
from hermes_edge.runtime.admission import Admission


def _session(runtime: Runtime, name: str, budget: int = 64) -> Session:
    return runtime.session(
        name=name, policy="window", budget_tokens=budget, chunk_frames=4, reserve_tokens=64
    )


@pytest.fixture(scope="module")
def one_bytes(random_bundle: Path) -> int:
    memory = _session(Runtime.load(random_bundle, threads=1), "alone").memory()
    return memory.slab_bytes + memory.spare_bytes


def test_the_stream_that_does_not_fit_is_told_the_arithmetic(
    random_bundle: Path, one_bytes: int
) -> None:
    limit = 2 * one_bytes + 1000
    runtime = Runtime.load(random_bundle, threads=1, memory_bytes=limit)
    front, back = _session(runtime, "front"), _session(runtime, "back")
    memory = front.memory()
    text = (
        "the memory of side does not fit the limit for all streams: "
        f"required {one_bytes:,} bytes (slabs {memory.slab_bytes:,}, "
        f"spare {memory.spare_bytes:,}), "
        f"found 1,000 left of {limit:,} beside front {one_bytes:,}, back {one_bytes:,}. "
        "Lower budgets or chunk_frames, or leave a stream out, or raise the limit"
    )
    with pytest.raises(BudgetError, match=rf"\A{re.escape(text)}\Z"):
        _session(runtime, "side")
    back.close()
    side = _session(runtime, "side")
    with pytest.raises(BudgetError, match="found 1,000 left"):
        _session(runtime, "back")
    # A session that nobody holds any more counts no longer, closed or not.
    del side
    gc.collect()
    _session(runtime, "back")


def test_a_session_that_fails_to_begin_holds_nothing(random_bundle: Path, one_bytes: int) -> None:
    runtime = Runtime.load(random_bundle, threads=1, memory_bytes=one_bytes)
    with pytest.raises(QuestionError):
        runtime.session(
            policy="window",
            budget_tokens=64,
            chunk_frames=4,
            reserve_tokens=64,
            prefix_ids=[1 << 80],
        )
    _session(runtime, "front")


def test_a_device_that_has_not_as_much_left_refuses(
    random_bundle: Path, one_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime.load(random_bundle, threads=1)
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: one_bytes - 1)
    text = (
        rf"\Athe memory of front does not fit cpu: required {one_bytes:,} bytes \(slabs .*\), "
        rf"found {one_bytes - 1:,} free\. Lower budgets or chunk_frames, or leave a stream out, "
        r"or end other programs\Z"
    )
    with pytest.raises(BudgetError, match=text):
        _session(runtime, "front")
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: None)
    _session(runtime, "front")


def test_garbage_that_is_found_while_a_stream_is_admitted_is_counted_out() -> None:
    class Collecting(CpuDevice):
        """Asked for its free memory in the midst of an admission."""

        def free_bytes(self) -> int | None:
            admission.release(first)
            return None

    admission = Admission(Collecting(), None)
    first = -1
    first = admission.admit("first", 100, 10)
    assert admission.held_bytes == 110
    admission.admit("second", 7, 1)
    assert admission.held_bytes == 8
