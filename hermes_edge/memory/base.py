"""What a policy sees and what it answers: plain arrays, one record per layer.

S is the number of cached rows of a layer. Its first ``prefix_rows`` rows are the prefix (system
text); all others are visual. Rows are ordered from oldest to newest, a summary stands last among
the rows that were there when it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

PREFIX_FRAME = -1
SUMMARY_FRAME = -2


Scoring = Literal["forward", "embedding"]
"""A causal forward of the probe over the memory, or each layer's view of its raw embeddings."""


class ProbeKind(str, Enum):
    """Which guidance text scores a layer."""

    WORKING = "working"  # "local; global"
    LONG_TERM = "long-term"  # global alone


@dataclass(frozen=True, slots=True)
class LayerRows:
    """Metadata of one layer's S rows; arrays are owned by the caller and must not be written to.

    Attributes:
        position: int64 [S], rotary position of the row's key.
        frame: int64 [S], index of the frame in the stream, ``PREFIX_FRAME`` or ``SUMMARY_FRAME``.
        time: float64 [S], seconds at which the row was seen (a summary: weighted mean).
        weight: int64 [S], how many tokens the row stands for (1, but for summaries).
    """

    position: Int64Array
    frame: Int64Array
    time: Float64Array
    weight: Int64Array

    def __len__(self) -> int:
        return len(self.position)

    @property
    def next_position(self) -> int:
        """Position of the row that comes next: one behind the largest."""
        return int(self.position.max()) + 1 if len(self.position) else 0


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What becomes of one layer's rows; rows in neither ``keep`` nor ``fold`` are dropped.

    Attributes:
        keep: int64 [K], rows to keep, ascending, the prefix among them.
        position: int64 [K], their positions afterwards.
        fold: int64 [R], rows averaged into one summary, which is stored last; may be empty.
        fold_weight: float32 [R], shares in that average; they sum to one.
        summary_position: position of the summary; None exactly where nothing is folded.
    """

    keep: Int64Array
    position: Int64Array
    fold: Int64Array
    fold_weight: Float32Array
    summary_position: int | None

    @property
    def rows_after(self) -> int:
        """Rows of the layer once the plan is carried out."""
        return len(self.keep) + (self.summary_position is not None)


Plan = tuple[LayerPlan, ...]
"""One :class:`LayerPlan` per layer."""


class Policy(Protocol):
    """Decides what a memory keeps. It holds its parameters and no state: the rows are the state."""

    @property
    def name(self) -> str:
        """As given on the command line."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Per layer: ``sensory``, ``working`` or ``long-term`` (``all`` where there are none)."""

    @property
    def scoring(self) -> Scoring:
        """How its scores are made."""

    def probe_kind(self, layer: int) -> ProbeKind | None:
        """Which probe scores the layer; None where its scores are not used."""

    def needs_scores(self, rows: Sequence[LayerRows], incoming_rows: int) -> bool:
        """Whether :meth:`plan` will need scores once ``incoming_rows`` more rows are stored."""

    def make_room(self, rows: Sequence[LayerRows], incoming_rows: int) -> Plan | None:
        """Before a chunk: a plan if it could not be stored as things stand, else None.

        Raises:
            BudgetError: the memory is full and this policy never evicts.
        """

    def plan(
        self, rows: Sequence[LayerRows], attention: Sequence[Float32Array | None]
    ) -> Plan | None:
        """After a chunk: what to keep, or None where nothing is to be done.

        Args:
            rows: one record per layer.
            attention: per layer float32 [S], mean attention of the layer's probe to every row
                (prefix included); None where the layer was not scored.
        """
