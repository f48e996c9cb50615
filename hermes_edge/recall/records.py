"""What was asked, and what each memory made of it."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_edge.bench.figures import MachineFigures


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of the benchmark; ``age_frames`` as :attr:`Question.age_frames`."""

    stream_seed: int
    stream_frames: int
    kind: str
    choice: bool
    asked_frame: int
    age_frames: int | None
    text: str
    answer: str


@dataclass(frozen=True, slots=True, order=True)
class CellKey:
    """A memory: a policy's label and its budget; 0 for what never evicts."""

    policy: str
    budget_tokens: int


Answers = tuple[bool | None, ...]
"""Right or wrong by question; None where the memory could not hold the stream."""


@dataclass(frozen=True, slots=True)
class Result:
    """Every answer of one run, and where it came from."""

    asked: tuple[Asked, ...]
    cells: dict[CellKey, Answers]
    bundle: str
    bundle_sha256: str
    seed: int
    settings: dict[str, object]
    machine: MachineFigures

    @property
    def policies(self) -> list[str]:
        """Labels in the order of the run."""
        return list(dict.fromkeys(key.policy for key in self.cells))

    @property
    def budgets(self) -> list[int]:
        """Budgets in tokens, ascending, without that of ``full``."""
        return sorted({key.budget_tokens for key in self.cells if key.budget_tokens})

    def key(self, policy: str, budget_tokens: int) -> CellKey:
        """The policy's cell at a budget; what never evicts has one for all."""
        key = CellKey(policy, budget_tokens)
        return key if key in self.cells else CellKey(policy, 0)
