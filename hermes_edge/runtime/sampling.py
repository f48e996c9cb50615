"""From logits to the next token, and where an answer stops. V is the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import numpy.typing as npt

# By name: numpy 2 imports this part when it is first used, which was at the first question.
from numpy.random import default_rng

from hermes_edge.arguments import real
from hermes_edge.errors import EngineError, SettingsError


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How an answer is decoded; the default is greedy.

    Attributes:
        max_new_tokens: longest answer; the reserve of the slabs limits it further.
        temperature: 0 for greedy decoding; above, logits are divided by it.
        top_p: sample from the fewest tokens whose probabilities reach this sum.
        repetition_penalty: positive logits of tokens already generated are divided by it, negative
            ones multiplied. The released code uses 1.1.
        stop: the answer ends before the first of these strings.
        seed: of the random generator; None for a fresh one per answer.

    Raises:
        SettingsError: a value is out of its range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        ranges = (
            (
                "max_new_tokens",
                self.max_new_tokens,
                "a whole number, at least 1",
                _is_whole(self.max_new_tokens) and self.max_new_tokens >= 1,
            ),
            (
                "temperature",
                self.temperature,
                "0 (greedy) or more",
                _is_real(self.temperature) and 0 <= self.temperature < math.inf,
            ),
            (
                "top_p",
                self.top_p,
                "above 0 and at most 1",
                _is_real(self.top_p) and 0 < self.top_p <= 1,
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                "above 0 (1 for none)",
                _is_real(self.repetition_penalty) and 0 < self.repetition_penalty < math.inf,
            ),
            (
                "seed",
                self.seed,
                "a whole number, 0 or more",
                self.seed is None or (_is_whole(self.seed) and self.seed >= 0),
            ),
        )
        for name, value, required, fits in ranges:
            if not fits:
                raise SettingsError(f"{name} is out of range", required=required, found=repr(value))
        if not isinstance(self.stop, tuple | list) or not all(
            isinstance(text, str) for text in self.stop
        ):
            found = repr(self.stop)
            raise SettingsError("stop is no tuple", required="a tuple of strings", found=found)
        if not all(self.stop):
            raise SettingsError("a stop string is empty", required="at least one character")


def _is_real(value: object) -> bool:
    return real(value) is not None


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


class Sampler:
    """Picks the tokens of one answer. With equal seeds, equal logits give equal answers."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._random = default_rng(params.seed)

    def pick(self, logits: npt.NDArray[np.float32], generated: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: float32 [V] of the last row; not written to.
            generated: the answer so far, which the repetition penalty looks at.

        Raises:
            EngineError: a logit is not finite.
        """
        finite = np.isfinite(logits)
        if not finite.all():
            raise EngineError(
                "the decoder's output logits is not finite",
                required=f"{logits.size} finite values",
                found=f"{logits.size - int(finite.sum())} that are NaN or infinite",
                fix="Half precision can overflow: export in fp32, or check the weights.",
            )
        scores = self._penalised(logits, generated)
        if self._params.temperature == 0:
            return int(scores.argmax())
        tokens, probabilities = nucleus(scores, self._params.temperature, self._params.top_p)
        return int(self._random.choice(tokens, p=probabilities))

    def _penalised(
        self, logits: npt.NDArray[np.float32], generated: Sequence[int]
    ) -> npt.NDArray[np.float32]:
        if self._params.repetition_penalty == 1 or not generated:
            return logits
        # Numbers that single precision lacks would end in infinities, and those in NaN.
        limits = np.finfo(np.float32)
        penalty = np.float32(np.clip(self._params.repetition_penalty, limits.tiny, limits.max))
        seen = np.unique(np.asarray(generated, dtype=np.int64))
        scores = logits.copy()
        with np.errstate(over="ignore"):
            punished = np.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
        scores[seen] = np.clip(punished, limits.min, limits.max)
        return scores


def nucleus(
    scores: npt.NDArray[np.float32], temperature: float, top_p: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The most probable tokens that together reach ``top_p``, with their probabilities.

    Args:
        scores: float32 [V], finite.
        temperature: above 0.
        top_p: above 0 and at most 1.

    Returns:
        int64 [K] tokens, most probable first (the lower id on ties), and float64 [K], summing to 1.
    """
    below_best = scores.astype(np.float64) - float(scores.max())
    with np.errstate(over="ignore"):  # a very small temperature: all but the best get 0
        weights = np.exp(below_best / temperature)
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order])
    # A token stays while those before it do not reach top_p; the first one always does.
    count = 1 + int(np.searchsorted(sums[:-1], top_p)) if top_p < 1 else len(order)
    kept = order[:count]
    return kept, weights[kept] / weights[kept].sum()


class StopScanner:
    """Cuts a text that comes in pieces before the first stop string.

    "First" is the one that is complete first, so that the result does not depend on the pieces.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """Take the next piece; return the text that cannot be part of a stop string any more."""
        if self.stopped:
            return ""
        text = self._held + piece
        # Complete first; of those, the one that begins first.
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        held_characters = max((_open_prefix(text, stop) for stop in self._stop), default=0)
        released = len(text) - held_characters
        self._held = text[released:]
        return text[:released]

    def finish(self) -> str:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        return held


def _open_prefix(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop`` without completing it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
