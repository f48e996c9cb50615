"""How a stream is cut: frames of a chunk, rows of a pass, and the largest calls that follow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChunkShape:
    """How frames are grouped, and the most rows of a pass, of a probe and of both probes."""

    tokens_per_frame: int
    chunk_frames: int
    slice_rows: int
    one_probe_rows: int
    both_probe_rows: int

    @property
    def slice_frames(self) -> int:
        """Whole frames that one slice holds; at least one, at most a chunk."""
        return min(max(self.slice_rows // self.tokens_per_frame, 1), self.chunk_frames)


@dataclass(frozen=True, slots=True)
class LargestCalls:
    """What sizes the engines' workspace.

    Attributes:
        new_rows: of the longest pass.
        probe_rows: of one probe.
        query_rows: of the probes that one pass holds.
        capacity_rows: of a slab.
    """

    new_rows: int
    probe_rows: int
    query_rows: int
    capacity_rows: int


def slice_rows_for(workspace_bytes: int, query_heads: int, capacity_rows: int) -> int:
    """Most new rows whose attention matrix (fp32) stays within ``workspace_bytes``."""
    return max(workspace_bytes // (4 * query_heads * capacity_rows), 1)
