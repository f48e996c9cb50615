"""Which layers are sensory, working and long-term memory (paper section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hermes_edge.errors import BudgetError

Band = Literal["sensory", "working", "long-term"]

SENSORY_RATIO = 0.1
LONG_TERM_RATIO = 0.3


@dataclass(frozen=True, slots=True)
class Bands:
    """Three consecutive groups of layers, shallow to deep.

    Layers below ``first_working`` are sensory, those from ``first_long_term`` on are long-term.
    """

    layers: int
    first_working: int
    first_long_term: int

    @classmethod
    def of(
        cls,
        layers: int,
        sensory_ratio: float = SENSORY_RATIO,
        long_term_ratio: float = LONG_TERM_RATIO,
    ) -> Bands:
        """Split as the released code does, in floating point (28 * 0.7 gives 19).

        Raises:
            BudgetError: too few layers for three bands.
        """
        bands = cls(layers, int(layers * sensory_ratio), int(layers * (1 - long_term_ratio)))
        if not 0 < bands.first_working < bands.first_long_term < layers:
            raise BudgetError(
                "too few layers for three bands",
                required="at least 10 layers",
                found=layers,
                fix="Use the policy window or uniform",
            )
        return bands

    def band(self, layer: int) -> Band:
        """Band of a layer."""
        if layer < self.first_working:
            return "sensory"
        return "working" if layer < self.first_long_term else "long-term"

    def depth(self, layer: int) -> float:
        """p in the schedules: 0 at the first working layer, 1 at the first long-term layer."""
        return (layer - self.first_working) / (self.first_long_term - self.first_working)

    def names(self) -> tuple[Band, ...]:
        """Band of every layer."""
        return tuple(self.band(layer) for layer in range(self.layers))
