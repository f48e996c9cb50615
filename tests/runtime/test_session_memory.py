"""What a session remembers: reports to the byte, invariants of long streams, flat memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.engines.views import Array
from hermes_edge.memory.base import PREFIX_FRAME, SUMMARY_FRAME
from hermes_edge.runtime import Runtime
from hermes_edge.spec import MemorySpec

PREFIX_ROWS, TOKENS_PER_FRAME = 21, 16
BAND_OF_LAYER = ["sensory"] + ["working"] * 6 + ["long-term"] * 3

VisualTokens = Callable[[int, int], Array]


def test_the_report_is_exact(runtime: Runtime, visual_tokens: VisualTokens) -> None:
    session = runtime.session(budget_tokens=128, chunk_frames=4, reserve_tokens=256)
    session.feed_tokens(visual_tokens(14, 1), [2.0 * n for n in range(14)])
    report = session.memory()
    decoder, precision = runtime.manifest.decoder, runtime.manifest.precision
    spec = MemorySpec(PREFIX_ROWS, 128, 64, 256)
    assert report.capacity_rows == spec.capacity_rows == 469
    assert report.slab_bytes == spec.slab_bytes(decoder, precision) == 469 * 10 * 2 * 32 * 4
    assert report.spare_bytes == spec.spare_bytes(decoder, precision) == 469 * 2 * 32 * 4
    assert (report.policy, report.budget_rows) == ("hermes", 128)
    assert report.open_chunk_rows == 2 * TOKENS_PER_FRAME
    assert (report.frames_seen, report.newest_s) == (14, 26.0)
    assert [layer.band for layer in report.layers] == BAND_OF_LAYER
    assert [layer.layer for layer in report.layers] == list(range(10))
    for layer, rows in zip(report.layers, session.rows(), strict=True):
        assert layer.rows == len(rows) == PREFIX_ROWS + 128 + 32
        assert layer.bytes == len(rows) * 2 * decoder.row_bytes(precision)
        assert layer.prefix_rows == PREFIX_ROWS
        assert layer.summary_rows == (layer.band == "long-term")
        assert layer.visual_rows == 160 - layer.summary_rows
        ages = 26.0 - rows.time[rows.frame >= 0]
        assert layer.oldest_age_s == ages.max()
        assert layer.median_age_s == np.median(ages)
        represented = 14 * TOKENS_PER_FRAME if layer.band == "long-term" else 160
        assert layer.tokens_represented == represented
    assert report.rows == PREFIX_ROWS + 160
    assert [(band.band, band.layers) for band in report.bands] == [
        ("sensory", 1),
        ("working", 6),
        ("long-term", 3),
    ]
    assert sum(band.bytes for band in report.bands) == sum(x.bytes for x in report.layers)
    for band in report.bands:
        members = [layer for layer in report.layers if layer.band == band.band]
        assert band.rows == PREFIX_ROWS + 160
        assert band.oldest_age_s == max(layer.oldest_age_s for layer in members)
        assert band.median_age_s == np.median([layer.median_age_s for layer in members])


def test_an_empty_memory_has_its_prefix(runtime: Runtime) -> None:
    report = runtime.session(budget_tokens=256, policy="window").memory()
    assert (report.rows, report.frames_seen, report.open_chunk_rows) == (PREFIX_ROWS, 0, 0)
    assert [band.band for band in report.bands] == ["all"]
    assert all(layer.oldest_age_s == layer.tokens_represented == 0 for layer in report.layers)


def test_flush_closes_the_open_chunk(runtime: Runtime, visual_tokens: VisualTokens) -> None:
    session = runtime.session(budget_tokens=64, chunk_frames=4, reserve_tokens=256)
    session.flush()
    assert session.timings().chunks == 0
    session.feed_tokens(visual_tokens(7, 1), 0.0)
    assert session.memory().open_chunk_rows == 48
    session.flush()
    report = session.memory()
    assert report.open_chunk_rows == 0
    assert [x.rows - x.prefix_rows for x in report.layers] == [64] * 10
    assert session.timings().chunks == 2
    session.flush()
    assert session.timings().chunks == 2
    # The next chunk is a whole one again.
    session.feed_tokens(visual_tokens(3, 2), 1.0)
    assert session.memory().open_chunk_rows == 48
    session.feed(np.zeros((30, 40, 3), dtype=np.uint8), 2.0)
    session.flush()
    assert session.timings().frames == session.memory().frames_seen == 11


def test_portions_of_frames_change_nothing(runtime: Runtime, visual_tokens: VisualTokens) -> None:
    """Frames that come in portions across the ends of chunks, with a time each."""
    tokens, times = visual_tokens(11, 5), [0.5 * n for n in range(11)]
    sessions = []
    for portions in ((11,), (3, 6, 2), (1,) * 11):
        session = runtime.session(budget_tokens=64, chunk_frames=4, reserve_tokens=256)
        done = 0
        for count in portions:
            span = slice(done * TOKENS_PER_FRAME, (done + count) * TOKENS_PER_FRAME)
            session.feed_tokens(tokens[span], times[done : done + count])
            done += count
        sessions.append(session)
    for rows in sessions[0].rows():
        seen = rows.frame >= 0
        np.testing.assert_array_equal(rows.time[seen], 0.5 * rows.frame[seen])
    for session in sessions[1:]:
        assert session.timings().chunks == sessions[0].timings().chunks == 2
        for ours, theirs in zip(session.rows(), sessions[0].rows(), strict=True):
            np.testing.assert_array_equal(ours.position, theirs.position)
            np.testing.assert_array_equal(ours.frame, theirs.frame)
            np.testing.assert_array_equal(ours.time, theirs.time)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["hermes", "window", "uniform", "random"])
def test_invariants_hold_over_a_long_stream(
    runtime: Runtime, visual_tokens: VisualTokens, policy: str
) -> None:
    """300 chunks: three times as many positions as the model has."""
    chunks, budget = 300, 64
    most = runtime.manifest.decoder.max_positions
    session = runtime.session(
        policy=policy, budget_tokens=budget, chunk_frames=1, reserve_tokens=64
    )
    reindexed, furthest = 0, 0
    for chunk in range(chunks):
        session.feed_tokens(visual_tokens(1, chunk), float(chunk))
        last = max(int(rows.position[-1]) for rows in session.rows())
        reindexed += last < furthest
        furthest = last
        assert last + 64 < most + TOKENS_PER_FRAME
        for layer, rows in enumerate(session.rows()):
            check_rows(rows, budget, (chunk + 1) * TOKENS_PER_FRAME, layer, policy)
    # A random memory drops the newest rows too, so positions are used again and never run out.
    assert (reindexed > 0) == (policy != "random")
    assert session.timings().frames == session.timings().chunks == chunks


def check_rows(rows: Any, budget: int, seen: int, layer: int, policy: str) -> None:
    assert (rows.frame[:PREFIX_ROWS] == PREFIX_FRAME).all()
    assert (rows.frame[PREFIX_ROWS:] != PREFIX_FRAME).all()
    assert len(rows) - PREFIX_ROWS == min(seen, budget)
    assert (np.diff(rows.position) > 0).all()
    assert rows.position[0] == 0
    visual = rows.frame[rows.frame >= 0]
    assert (np.diff(visual) >= 0).all()
    folds = policy == "hermes" and BAND_OF_LAYER[layer] == "long-term"
    # Folded tokens live on in the summary; elsewhere they are dropped.
    stands_for = int(rows.weight[PREFIX_ROWS:].sum())
    assert stands_for == (seen if folds else min(seen, budget))
    # A summary may be kept, on its own or inside a later one, or several of them.
    summaries = int((rows.frame == SUMMARY_FRAME).sum())
    assert (summaries > 0) == (folds and seen > budget)


FEED = """
import sys
from pathlib import Path
import numpy as np
from hermes_edge.runtime import Runtime

def resident_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmRSS")) << 10

runtime = Runtime.load(sys.argv[1], threads=1)
random = np.random.default_rng(0)
pool = random.standard_normal((17 * 16, 64), dtype=np.float32)
session = runtime.session(budget_tokens=320, chunk_frames=16)
before = resident_bytes()
for chunk in range(int(sys.argv[2]) // 16):
    session.feed_tokens(np.roll(pool, chunk, axis=0)[:256], float(chunk))
print(session.memory().frames_seen, resident_bytes() - before)
"""


def run_alone(script: str, *arguments: object) -> str:
    """What a process of its own prints."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout


@pytest.mark.slow
def test_memory_stays_flat_from_the_first_frame(random_bundle: Path) -> None:
    frames = 5008  # whole chunks
    seen, grown_bytes = map(int, run_alone(FEED, random_bundle, frames).split())
    assert seen == frames
    assert grown_bytes < 5_000_000


LATE = """
import sys
from pathlib import Path
import numpy as np
from hermes_edge.runtime import Runtime, SamplingParams

runtime = Runtime.load(sys.argv[1], threads=1)
frame = np.zeros((24, 32, 3), np.uint8)
with runtime.session(budget_tokens=96, chunk_frames=4, reserve_tokens=256) as session:
    before = {*sys.modules}
    for index in range(16):
        session.feed(frame, at=float(index))
    session.ask("What is it?", SamplingParams(max_new_tokens=4, temperature=1.0))
    session.memory()
    session.save(Path(sys.argv[2]) / "memory.safetensors", stream="door")
    runtime.restore(Path(sys.argv[2]) / "memory.safetensors")
print(*{*sys.modules} - before)
"""


def test_nothing_is_imported_while_a_stream_runs(random_bundle: Path, tmp_path: Path) -> None:
    """It would take time and memory when neither is expected."""
    assert run_alone(LATE, random_bundle, tmp_path).strip() == ""


def test_ages_of_any_finite_times_are_finite(runtime: Runtime) -> None:
    session = runtime.session(budget_tokens=96, chunk_frames=4, reserve_tokens=256)
    for at in (0.0, 0.0, 0.0, 1e308):
        session.feed(np.zeros((24, 32, 3), np.uint8), at)
    memory = session.memory()
    ages = [layer.median_age_s for layer in memory.layers] + [b.median_age_s for b in memory.bands]
    assert set(ages) == {1e308}
