"""What was asked, and what each memory made of it."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_edge.bench.figures import MachineFigures
from hermes_edge.recall.policies import POLICIES


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
    """Every answer of one run, and where it came from.

    Attributes:
        cells: one answer per question of ``asked``, in its order.
        bundle, bundle_sha256: the model id, and the hash of the bundle's manifest.
        settings: ``training_frames`` and ``tokens_per_frame``, on which shares are based, and
            whatever else the run was given.
    """

    asked: tuple[Asked, ...]
    cells: dict[CellKey, Answers]
    bundle: str
    bundle_sha256: str
    seed: int
    settings: dict[str, object]
    machine: MachineFigures

    @property
    def policies(self) -> list[str]:
        """Labels in the order of :data:`POLICIES`, others by name after them."""
        order = {label: index for index, label in enumerate(POLICIES)}
        found = {key.policy for key in self.cells}
        return sorted(found, key=lambda label: (order.get(label, len(order)), label))

    @property
    def budgets(self) -> list[int]:
        """Budgets in tokens, ascending, without that of ``full``; [0] where no other ran."""
        return sorted({key.budget_tokens for key in self.cells} - {0}) or [0]

    @property
    def frames(self) -> list[int]:
        """Lengths of the streams, ascending."""
        return sorted({asked.stream_frames for asked in self.asked})

    @property
    def base_frames(self) -> int:
        """The training length where streams of it were asked about, else the shortest length."""
        trained = _setting(self, "training_frames")
        return trained if trained in self.frames or not self.frames else self.frames[0]

    def share(self, budget_tokens: int) -> float:
        """A budget in visual tokens of a stream of the training length; 1.0 holds all of it."""
        whole = _setting(self, "training_frames") * _setting(self, "tokens_per_frame")
        return budget_tokens / whole

    def never_evicts(self, policy: str) -> bool:
        """Whether the policy has one cell for all budgets."""
        return CellKey(policy, 0) in self.cells

    def key(self, policy: str, budget_tokens: int) -> CellKey:
        """The policy's cell at a budget; what never evicts has one for all."""
        return CellKey(policy, 0 if self.never_evicts(policy) else budget_tokens)

    def answers(self, policy: str, budget_tokens: int) -> Answers:
        """What that cell holds; None for every question where it was not run."""
        return self.cells.get(self.key(policy, budget_tokens), (None,) * len(self.asked))


def _setting(result: Result, name: str) -> int:
    value = result.settings[name]
    if not isinstance(value, int):
        raise TypeError(f"{name} is {value!r} and no number")
    return value
