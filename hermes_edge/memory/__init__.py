"""Policies: which rows of the KV cache to keep, to fold and to drop. Pure numpy."""

from __future__ import annotations

import reprlib
from dataclasses import replace
from typing import get_args

from hermes_edge.errors import SettingsError
from hermes_edge.memory.base import Policy, Scoring
from hermes_edge.memory.baselines import (
    FullPolicy,
    SelectionPolicy,
    newest_rows,
    random_rows,
    spread_frames,
)
from hermes_edge.memory.hermes import HERMES, HermesPolicy, Reindexing, Smoothing, released
from hermes_edge.memory.plans import apply_plan
from hermes_edge.memory.positions import PositionLimit
from hermes_edge.memory.probes import History, probe_texts

__all__ = ["POLICY_NAMES", "History", "apply_plan", "make_policy", "probe_texts"]

POLICY_NAMES = ("hermes", "hermes-released", "window", "uniform", "random", "full")

_OPTIONS = {"scoring": Scoring, "reindexing": Reindexing, "smoothing": Smoothing}
_SELECTIONS = {"window": newest_rows, "uniform": spread_frames, "random": random_rows}


def make_policy(
    name: str,
    *,
    layers: int,
    budget_rows: int,
    max_positions: int,
    reserve_rows: int,
    scoring: Scoring | None = None,
    reindexing: Reindexing | None = None,
    smoothing: Smoothing | None = None,
) -> Policy:
    """A policy by name.

    Args:
        name: one of :data:`POLICY_NAMES`.
        layers: L of the decoder.
        budget_rows: M, visual rows that each layer may keep.
        max_positions: the model's position limit.
        reserve_rows: rows kept free for a probe, or for a question with its answer.
        scoring: of the hermes policies; ``forward`` for hermes, ``embedding`` for the released.
        reindexing: of the hermes policies; ``lazy`` by default.
        smoothing: of the hermes policies; ``recursive`` by default.

    Raises:
        SettingsError: unknown name or word, or an option that the policy does not have.
        BudgetError: a budget that keeps nothing, or too few layers for three bands.
    """
    if name not in POLICY_NAMES:
        found = reprlib.repr(name)
        raise SettingsError("unknown policy", required=", ".join(POLICY_NAMES), found=found)
    words = {"scoring": scoring, "reindexing": reindexing, "smoothing": smoothing}
    for option, word in words.items():
        if word is not None and word not in (known := get_args(_OPTIONS[option])):
            found = reprlib.repr(word)
            raise SettingsError(f"unknown {option}", required=" or ".join(known), found=found)
    limit = PositionLimit(max_positions, reserve_rows)
    if name in ("hermes", "hermes-released"):
        params = HERMES if name == "hermes" else released()
        params = replace(
            params,
            scoring=scoring or params.scoring,
            reindexing=reindexing or params.reindexing,
            smoothing=smoothing or params.smoothing,
        )
        return HermesPolicy(params, layers, budget_rows, limit)
    if scoring or reindexing or smoothing:
        raise SettingsError(
            f"the policy {name} has no scoring, re-indexing or smoothing to choose",
            required="hermes or hermes-released",
            found=name,
        )
    if name == "full":
        return FullPolicy(layers, budget_rows, limit)
    return SelectionPolicy(name, _SELECTIONS[name], layers, budget_rows, limit)
