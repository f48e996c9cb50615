"""The largest calls of a session that is still to come, for engines that are built for them."""

from __future__ import annotations

from hermes_edge.engines import Bundle
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.errors import BudgetError
from hermes_edge.manifest import TOKENIZER_NAME
from hermes_edge.runtime.chunks import ChunkShape, slice_rows_for
from hermes_edge.runtime.probes import most_probe_rows
from hermes_edge.runtime.runtime import DEFAULT_WORKSPACE_BYTES
from hermes_edge.runtime.text import TextCodec
from hermes_edge.spec import MemorySpec

# Of a system text, where the bundle has no tokenizer to tell.
_MOST_PREFIX_TOKENS = 64


def session_limits(
    bundle: Bundle, budget_tokens: int, chunk_frames: int | None, reserve_tokens: int
) -> Limits:
    """Limits of a session with these settings and the default workspace.

    Raises:
        BudgetError: the budget is below one chunk, or does not fit the model's positions.
    """
    manifest = bundle.manifest
    prefix = _MOST_PREFIX_TOKENS
    if (bundle.path / TOKENIZER_NAME).exists():
        codec = TextCodec.open(bundle.path, manifest.video_token)
        prefix = max(prefix, len(codec.prefix_ids(None)))
    chunk = chunk_frames or manifest.chunk_frames
    chunk_rows = chunk * manifest.tokens_per_frame
    most = manifest.decoder.max_positions - prefix - chunk_rows - reserve_tokens
    if not chunk_rows <= budget_tokens <= most:
        raise BudgetError(
            "the budget does not fit the model",
            required=f"{chunk_rows} (a chunk) to {most} tokens",
            found=budget_tokens,
        )
    rows = MemorySpec(prefix, budget_tokens, chunk_rows, reserve_tokens).capacity_rows
    one, both = most_probe_rows(reserve_tokens, given=True)
    shape = ChunkShape(
        tokens_per_frame=manifest.tokens_per_frame,
        chunk_frames=chunk,
        slice_rows=slice_rows_for(DEFAULT_WORKSPACE_BYTES, manifest.decoder.query_heads, rows),
        one_probe_rows=one,
        both_probe_rows=both,
    )
    return Limits(
        capacity_rows=rows,
        pass_rows=max(min(shape.slice_rows, chunk_rows + both), reserve_tokens),
        probe_rows=both,
        frames=shape.slice_frames,
    )
