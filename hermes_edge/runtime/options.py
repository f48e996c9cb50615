"""From what a session is asked for to its policy, its rows and its passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from hermes_edge.manifest import Manifest
from hermes_edge.memory import make_policy
from hermes_edge.memory.base import Policy, Scoring
from hermes_edge.memory.hermes import Reindexing, Smoothing
from hermes_edge.runtime.limits import check_budget, check_counts
from hermes_edge.runtime.probes import most_probe_rows
from hermes_edge.runtime.shapes import ChunkShape, slice_rows_for
from hermes_edge.snapshots import StreamOptions
from hermes_edge.spec import MemorySpec


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What options come to with a bundle's model."""

    policy: Policy
    spec: MemorySpec
    shape: ChunkShape


def plan_stream(options: StreamOptions, manifest: Manifest) -> StreamPlan:
    """Policy, rows and passes; nothing is allocated.

    Raises:
        SettingsError: unknown policy or option, or an empty chunk, reserve or workspace.
        BudgetError: the budget is smaller than a chunk, or larger than the positions allow.
    """
    check_counts(
        chunk_frames=options.chunk_frames,
        reserve_tokens=options.reserve_tokens,
        workspace_bytes=options.workspace_bytes,
    )
    decoder, reserve = manifest.decoder, options.reserve_tokens
    prefix_rows, budget = len(options.prefix_ids), options.budget_tokens
    chunk_rows = options.chunk_frames * manifest.tokens_per_frame
    spec = MemorySpec(prefix_rows, budget, chunk_rows, reserve)
    check_budget(decoder, spec)
    policy = make_policy(
        options.policy,
        layers=decoder.layers,
        budget_rows=budget,
        max_positions=decoder.max_positions,
        reserve_rows=reserve,
        # Other words than these are the policy's to refuse.
        scoring=cast("Scoring | None", options.scoring),
        reindexing=cast("Reindexing | None", options.reindexing),
        smoothing=cast("Smoothing | None", options.smoothing),
    )
    one_probe_rows, both_probe_rows = most_probe_rows(reserve, given=options.own_probes)
    shape = ChunkShape(
        tokens_per_frame=manifest.tokens_per_frame,
        chunk_frames=options.chunk_frames,
        slice_rows=slice_rows_for(options.workspace_bytes, decoder.query_heads, spec.capacity_rows),
        one_probe_rows=one_probe_rows,
        both_probe_rows=both_probe_rows,
    )
    return StreamPlan(policy, spec, shape)
