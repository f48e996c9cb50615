"""What a session may ask for, and the largest calls that it leads to."""

from __future__ import annotations

from hermes_edge.arguments import optional_whole
from hermes_edge.engines import Bundle
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.errors import BudgetError
from hermes_edge.manifest import TOKENIZER_NAME, Manifest
from hermes_edge.runtime.probes import most_probe_rows
from hermes_edge.runtime.shapes import ChunkShape, slice_rows_for
from hermes_edge.runtime.text import TextCodec
from hermes_edge.spec import DecoderSpec, MemorySpec

# 0.5B geometry, budget 6,000: 96 MiB made sessions 98 MB larger, encoding no faster (docs/log.md).
DEFAULT_WORKSPACE_BYTES = 64 << 20
_DEFAULT_BUDGET_TOKENS = 4000
# Of a system text, where the bundle has no tokenizer to tell.
_MOST_PREFIX_TOKENS = 64
# What makes room, by the rows of prefix, chunk and reserve.
_TAKERS = ("Shorten the system text or prefix_ids", "Lower chunk_frames", "Lower reserve_tokens")


def check_counts(**counts: int | None) -> None:
    """Refuse a count of nothing, by its name.

    Raises:
        SettingsError: one is below 1.
    """
    for name, value in counts.items():
        optional_whole(name, value, least=1)


def most_budget(decoder: DecoderSpec, prefix_rows: int, chunk_rows: int, reserve_rows: int) -> int:
    """Visual rows that fit the model's positions beside prefix, open chunk and reserve."""
    return decoder.max_positions - prefix_rows - chunk_rows - reserve_rows


def default_budget(most: int) -> int:
    """What a layer keeps where no budget is given."""
    return min(_DEFAULT_BUDGET_TOKENS, most)


def budget_rows(manifest: Manifest, tokens: int | None, nbytes: int | None, most: int) -> int:
    """What a layer keeps, from a budget in tokens or in bytes, or without one.

    Raises:
        BudgetError: both are given.
    """
    if tokens is not None and nbytes is not None:
        raise BudgetError("two budgets", required="tokens or bytes", found="both")
    if nbytes is not None:
        return nbytes // manifest.decoder.kv_bytes_per_token(manifest.precision)
    return default_budget(most) if tokens is None else tokens


def check_budget(decoder: DecoderSpec, memory: MemorySpec) -> None:
    """Refuse a budget that no session can have.

    Raises:
        BudgetError: it is smaller than a chunk, or larger than the positions allow.
    """
    budget, rows = memory.budget_rows, (memory.prefix_rows, memory.chunk_rows, memory.reserve_rows)
    most = most_budget(decoder, *rows)
    if most < memory.chunk_rows:
        # Of a chunk there are two, the open one and the least budget.
        takers = dict(zip(_TAKERS, (rows[0], 2 * rows[1], rows[2]), strict=True))
        raise BudgetError(
            "nothing is left for the budget",
            required="prefix, reserve, open chunk and a budget of at least a chunk within "
            f"{decoder.max_positions} positions",
            found="prefix {}, chunk {}, reserve {}".format(*rows),
            fix=max(takers, key=takers.__getitem__),
        )
    if budget < memory.chunk_rows:
        raise BudgetError(
            "the budget is smaller than a chunk",
            required=f"at least {memory.chunk_rows} tokens",
            found=budget,
            fix="Raise the budget or lower chunk_frames",
        )
    if budget > most:
        raise BudgetError(
            "the budget does not fit the model's positions",
            required=f"at most {most} tokens (positions less prefix, chunk and reserve)",
            found=budget,
            fix="Lower the budget, chunk_frames or reserve_tokens",
        )


def session_limits(
    bundle: Bundle,
    budget_tokens: int | None,
    chunk_frames: int | None,
    reserve_tokens: int,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
) -> Limits:
    """Limits of a session with these settings, for engines to come.

    Raises:
        SettingsError: an empty chunk or reserve.
        BudgetError: the budget is below one chunk, or does not fit the model's positions.
    """
    check_counts(
        chunk_frames=chunk_frames, reserve_tokens=reserve_tokens, workspace_bytes=workspace_bytes
    )
    manifest = bundle.manifest
    prefix = _MOST_PREFIX_TOKENS
    if (bundle.path / TOKENIZER_NAME).exists():
        codec = TextCodec.open(bundle.path, manifest.video_token)
        prefix = max(prefix, len(codec.prefix_ids(None)))
    chunk = chunk_frames or manifest.chunk_frames
    chunk_rows = chunk * manifest.tokens_per_frame
    most = most_budget(manifest.decoder, prefix, chunk_rows, reserve_tokens)
    budget = default_budget(most) if budget_tokens is None else budget_tokens
    spec = MemorySpec(prefix, budget, chunk_rows, reserve_tokens)
    check_budget(manifest.decoder, spec)
    rows = spec.capacity_rows
    one, both = most_probe_rows(reserve_tokens, given=True)
    shape = ChunkShape(
        tokens_per_frame=manifest.tokens_per_frame,
        chunk_frames=chunk,
        slice_rows=slice_rows_for(workspace_bytes, manifest.decoder.query_heads, rows),
        one_probe_rows=one,
        both_probe_rows=both,
    )
    return Limits(
        capacity_rows=rows,
        pass_rows=max(min(shape.slice_rows, chunk_rows + both), reserve_tokens),
        probe_rows=both,
        frames=shape.slice_frames,
    )
