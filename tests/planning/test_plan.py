"""The arithmetic of a plan, against real sessions where there are any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hermes_edge.errors import BudgetError, SettingsError
from hermes_edge.planning.devices import Device, find_device
from hermes_edge.planning.knobs import memory_knobs, time_knob
from hermes_edge.planning.plan import Plan, Wish, make_plan
from hermes_edge.planning.subject import Subject, open_subject
from hermes_edge.runtime import Runtime
from hermes_edge.shipped import TINY_BUNDLE

WISH = Wish(
    budget_tokens=512,
    chunk_frames=4,
    reserve_tokens=96,
    streams=1,
    fps=2.0,
    frame_width=640,
    frame_height=480,
)
GIB = 1 << 30


@pytest.fixture(scope="module")
def tiny() -> Subject:
    return open_subject(str(TINY_BUNDLE))


def device(nbytes: int, *, shared: bool = True, rate: float = 1.0) -> Device:
    return Device("board", nbytes, 1000, shared, 100.0, rate)


def share(plan: Plan, name: str) -> int:
    return next(share.nbytes for share in plan.shares if share.name == name)


@pytest.mark.parametrize("streams", [1, 3])
def test_slabs_are_planned_to_the_byte(tiny: Subject, streams: int) -> None:
    plan = make_plan(tiny, device(GIB), replace(WISH, streams=streams))
    runtime = Runtime.load(TINY_BUNDLE)
    sessions = [
        runtime.session(budget_tokens=512, chunk_frames=4, reserve_tokens=96)
        for _ in range(streams)
    ]
    memories = [session.memory() for session in sessions]
    assert share(plan, "slabs") == sum(memory.slab_bytes for memory in memories)
    assert share(plan, "spare slabs") == sum(memory.spare_bytes for memory in memories)
    assert plan.memory.capacity_rows == memories[0].capacity_rows
    for session in sessions:
        session.close()


def test_shares_add_up_to_the_device(tiny: Subject) -> None:
    plan = make_plan(tiny, device(GIB), WISH)
    assert plan.needed_bytes + plan.left_bytes == GIB
    assert plan.needed_bytes == sum(share.nbytes for share in plan.shares)
    assert share(plan, "waiting frames") == 4 * 640 * 480 * 3
    assert plan.fits and memory_knobs(plan) == () and time_knob(plan) is None


def test_a_static_decoder_reads_whole_slabs_for_a_further_token(tiny: Subject) -> None:
    """1 TFLOP/s beside 100 GB/s: reading is what takes the time."""
    growing, static = (
        make_plan(subject, device(GIB, rate=1.0), WISH)
        for subject in (tiny, replace(tiny, static_decode=True))
    )
    assert static.stages[:-1] == growing.stages[:-1]
    unseen = static.memory.chunk_rows + static.memory.reserve_rows - 1
    more_ms = unseen * tiny.decoder.kv_bytes_per_token("fp32") / 1e8
    found_ms = static.stages[-1].floor.ms - growing.stages[-1].floor.ms
    assert found_ms == pytest.approx(more_ms)


def test_a_card_holds_neither_process_nor_frames(tiny: Subject) -> None:
    names = {share.name for share in make_plan(tiny, device(GIB, shared=False), WISH).shares}
    assert names == {
        "decoder weights",
        "vision weights",
        "engine workspace",
        "slabs",
        "spare slabs",
        "reserve",
    }


def test_the_largest_budget_that_fits_is_told_and_fits(tiny: Subject) -> None:
    needed = make_plan(tiny, device(GIB), WISH).needed_bytes
    small = device(needed - 500_000)
    plan = make_plan(tiny, small, WISH)
    assert not plan.fits
    (knob,) = (knob for knob in memory_knobs(plan) if knob.startswith("--budget "))
    turned = replace(WISH, budget_tokens=int(knob.split()[1]))
    assert turned.budget_tokens > 300
    assert make_plan(tiny, small, turned).fits


def test_the_most_streams_that_fit_are_told_and_fit(tiny: Subject) -> None:
    needed = make_plan(tiny, device(GIB), replace(WISH, streams=3)).needed_bytes
    small, wish = device(needed), replace(WISH, streams=5)
    plan = make_plan(tiny, small, wish)
    assert "--streams 3" in memory_knobs(plan)
    assert make_plan(tiny, small, replace(WISH, streams=3)).fits
    assert not make_plan(tiny, small, replace(WISH, streams=4)).fits


def test_weights_that_are_too_much(tiny: Subject) -> None:
    plan = make_plan(replace(tiny, precision="fp16"), device(1_000_000), WISH)
    assert memory_knobs(plan) == (
        "a smaller model or a larger device: weights, process and reserve alone are too much",
    )


def test_frames_that_are_too_much(tiny: Subject) -> None:
    """The largest frame of that shape is told, and fits."""
    wish = replace(WISH, frame_width=99999, frame_height=50000)
    plan = make_plan(tiny, device(GIB), wish)
    (knob,) = memory_knobs(plan)
    width, height = map(int, knob.removeprefix("--frame-size ").split("x"))
    assert width / height == pytest.approx(2, rel=1e-3)
    assert make_plan(tiny, device(GIB), replace(wish, frame_width=width, frame_height=height)).fits
    larger = replace(wish, frame_width=width + 2, frame_height=height + 2)
    assert not make_plan(tiny, device(GIB), larger).fits


def test_a_reserve_that_is_too_much(tiny: Subject) -> None:
    board = replace(device(GIB), reserve_bytes=100 * GIB)
    (knob,) = memory_knobs(make_plan(tiny, board, WISH))
    mib = int(knob.removeprefix("--reserve ").removesuffix("MiB"))
    assert make_plan(tiny, replace(board, reserve_bytes=mib << 20), WISH).fits
    assert not make_plan(tiny, replace(board, reserve_bytes=(mib + 1) << 20), WISH).fits


def test_no_knob_alone_is_enough(tiny: Subject) -> None:
    plan = make_plan(tiny, device(GIB), replace(WISH, streams=4, budget_tokens=1800))
    least = sum(share(plan, name) for name in ("process", "reserve")) + (12 << 20)
    assert memory_knobs(make_plan(tiny, device(least), plan.wish)) == (
        "--budget, --frame-size, --streams and the export together: none alone is enough",
    )


@pytest.mark.parametrize(
    ("share_of_fp32", "options"),
    [
        (0.6, "--dtype fp16"),
        (0.4, "--dtype int8 --compute fp16"),
        (0.33, "--dtype int4 --compute fp16"),
    ],
)
def test_the_largest_export_that_fits_is_told(
    tiny: Subject, share_of_fp32: float, options: str
) -> None:
    """What weights, slabs and workspace take; process, frames and reserve do not shrink."""
    plan = make_plan(tiny, device(GIB), WISH)
    fixed = sum(share(plan, name) for name in ("process", "waiting frames", "reserve"))
    small = device(fixed + int(share_of_fp32 * (plan.needed_bytes - fixed)))
    assert f"an export with {options}" in memory_knobs(make_plan(tiny, small, WISH))


def test_longer_slices_read_the_weights_less_often(tiny: Subject) -> None:
    """A device that computes at once and reads slowly: a chunk takes its passes, and no more."""
    slow = device(GIB, rate=1000.0)
    times = []
    for kib in (64, 128, 1024):
        wish = replace(WISH, slice_workspace_bytes=kib << 10)
        times.append(make_plan(tiny, slow, wish).stages[0].floor.ms)
    assert times[0] > 1.5 * times[1] > 1.5 * times[2]


def test_frames_that_come_too_fast(tiny: Subject) -> None:
    slow = device(GIB, rate=0.001)
    plan = make_plan(tiny, slow, replace(WISH, fps=50))
    assert plan.load > 1 and not plan.fits
    knob = time_knob(plan)
    assert knob is not None and memory_knobs(plan) == ()
    fps = float(knob.removeprefix("--fps ").removesuffix(" at most"))
    assert 0.9 < make_plan(tiny, slow, replace(WISH, fps=fps)).load <= 1
    assert plan.load == pytest.approx(25 * make_plan(tiny, slow, WISH).load)


def test_a_token_costs_a_read_of_weights_and_memory(tiny: Subject) -> None:
    plan = make_plan(tiny, device(GIB, rate=1e6), WISH)
    rows = tiny.prefix_tokens + 512 + 1
    read = tiny.decoder_bytes + rows * tiny.decoder.kv_bytes_per_token("fp32")
    assert plan.stages[-1].floor.ms == pytest.approx(read / 100e9 * 1000)
    assert plan.stages[-1].floor.kind == "reads"


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (replace(WISH, streams=0), "streams is out of range: required at least 1, found 0"),
        (
            replace(WISH, chunk_frames=0),
            "chunk_frames is out of range: required at least 1, found 0",
        ),
        (replace(WISH, fps=0), "fps is out of range: required above 0, below 1000, found 0"),
        (
            replace(WISH, frame_width=0),
            "frame width is out of range: required at least 1, found 0",
        ),
    ],
)
def test_counts_out_of_range(tiny: Subject, wish: Wish, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_plan(tiny, device(GIB), wish)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            63,
            "the budget is smaller than a chunk: required at least 64 tokens, found 63. "
            "Raise the budget or lower chunk_frames",
        ),
        (
            1876,
            "the budget does not fit the model's positions: required at most 1875 tokens "
            "(positions less prefix, chunk and reserve), found 1876. "
            "Lower the budget, chunk_frames or reserve_tokens",
        ),
    ],
)
def test_budgets_out_of_range(tiny: Subject, budget: int, message: str) -> None:
    with pytest.raises(BudgetError) as caught:
        make_plan(tiny, device(GIB), replace(WISH, budget_tokens=budget))
    assert str(caught.value) == message


def test_devices_by_name_and_by_figures() -> None:
    assert find_device("orin-nano-8gb").memory_bytes == 8 * GIB
    own = find_device("16GiB:102.4GB/s:15TFLOPS")
    assert (own.memory_bytes, own.gbyte_per_s, own.tflop_per_s) == (16 * GIB, 102.4, 15.0)
    assert own.reserve_bytes == 0


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("orin-nano", "unknown device 'orin-nano' (did you mean orin-nano-8gb?): required orin-"),
        ("?", "unknown device '?': required orin-nano-8gb, "),
        ("0GiB:1GB/s:1TFLOPS", "unknown device '0GiB:1GB/s:1TFLOPS': required "),
        ("1.2.3GiB:1GB/s:1TFLOPS", "unknown device '1.2.3GiB:1GB/s:1TFLOPS': required "),
    ],
)
def test_unknown_devices(name: str, begins: str) -> None:
    with pytest.raises(SettingsError) as caught:
        find_device(name)
    assert str(caught.value).startswith(begins)
    assert str(caught.value).endswith(", this, or figures such as 8GiB:68GB/s:10TFLOPS")
