"""The report for people: a few tables."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from hermes_edge.bench.figures import (
    AgainstFigures,
    BenchReport,
    MemoryFigures,
    SessionFigures,
    Spread,
    Timed,
    UpkeepFigures,
)


def render(report: BenchReport) -> Group:
    """Stages and sessions, memory, upkeep and, where measured, the comparison."""
    parts = [_stages(report), _upkeep(report.upkeep), _memory(report.memory)]
    if report.against_transformers is not None:
        parts.append(_against(report.against_transformers))
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _stages(report: BenchReport) -> Table:
    cores = report.machine.usable_cores
    title = f"{report.bundle.model_id} on {report.machine.processor}, {cores} cores; ms"
    table = _table(title, "stage", "rows", "median", "min - max", "floor", "set by")
    if report.vision is not None:
        _add_timed(table, "vision, a frame", None, report.vision.per_frame)
    for name, session in report.sessions.items():
        _add_session(table, name, session)
    rates, replay = report.rates, report.replay
    table.caption = (
        f"floors: {rates.sgemm_gflop_per_s:.0f} GFLOP/s, {rates.read_gbyte_per_s:.1f} GB/s read"
    )
    if replay is not None:
        table.caption += (
            f"; single rows: {replay.plain_runs} run plainly, {replay.captures} captured, "
            f"{replay.launches} launched as a CUDA graph"
        )
    return table


def _add_session(table: Table, name: str, session: SessionFigures) -> None:
    question, chunk = session.question, session.chunk
    _add_timed(table, f"{name}: first token", question.memory_rows, question.ttft)
    _add_timed(table, f"{name}: further token", question.memory_rows, question.per_token)
    if chunk is not None:
        label = f"{name}: encode {chunk.rows} rows"
        _add_timed(table, label, chunk.memory_rows, chunk.encode)
        _add_spread(table, f"{name}: score", chunk.memory_rows, chunk.score_ms)
        _add_spread(table, f"{name}: compact", chunk.memory_rows, chunk.compact_ms)


def _add_timed(table: Table, stage: str, rows: int | None, timed: Timed) -> None:
    floor = (_short(timed.floor.ms), timed.floor.kind)
    _add_spread(table, stage, rows, timed.ms, floor)


def _add_spread(
    table: Table, stage: str, rows: int | None, ms: Spread, floor: tuple[str, str] = ("", "")
) -> None:
    counted = "" if rows is None else str(rows)
    table.add_row(stage, counted, _short(ms.median), _range(ms), *floor)


def _short(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def _range(ms: Spread) -> str:
    return f"{_short(ms.minimum)} - {_short(ms.maximum)}"


def _upkeep(upkeep: UpkeepFigures) -> Table:
    table = _table("scoring and compaction of a chunk", "counted as", "ms", "min - max", "share")
    for label, ms, share in (
        ("their own stages", upkeep.counted_ms, upkeep.counted_share),
        ("more than a window's encode", upkeep.difference_ms, upkeep.difference_share),
    ):
        table.add_row(label, _short(ms.median), _range(ms), f"{share:.1%}")
    return table


def _memory(memory: MemoryFigures) -> Table:
    table = _table("memory", "what", "MB")
    for label, nbytes in (
        ("graphs and weights, files", memory.graph_bytes),
        ("slabs", memory.slab_bytes),
        ("spare", memory.spare_bytes),
        ("resident, engines loaded", memory.resident_loaded_bytes),
        ("resident, session filled", memory.resident_filled_bytes),
        ("resident, peak", memory.peak_resident_bytes),
        ("bound of the peak", memory.bound_bytes),
        ("over the bound", memory.over_bound_bytes),
    ):
        table.add_row(label, f"{nbytes / 1e6:.1f}")
    return table


def _against(against: AgainstFigures) -> Table:
    table = _table(f"against {against.model}", "ms", "hermes-edge", "transformers", "ratio")
    for label, ours, theirs, ratio in (
        ("first token", against.ttft_ms, against.their_ttft_ms, against.ttft_ratio),
        (
            "further token",
            against.per_token_ms,
            against.their_per_token_ms,
            against.per_token_ratio,
        ),
    ):
        table.add_row(label, _short(ours.median), _short(theirs.median), f"{ratio:.2f}")
    table.caption = (
        f"{against.memory_rows} cached rows; first logits differ by "
        f"{against.first_logits_difference:.1e}, {against.equal_greedy_tokens} equal tokens"
    )
    return table
