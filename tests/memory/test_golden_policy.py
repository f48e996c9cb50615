"""The released policy, driven with the attention that the released code recorded."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hermes_edge.memory import apply_plan, make_policy
from hermes_edge.memory.base import PREFIX_FRAME, LayerRows, Policy
from hermes_edge.memory.hermes import HermesPolicy

GOLDEN = Path(os.environ.get("HERMES_EDGE_GOLDEN", Path(__file__).parents[1] / "golden"))


def _grown(rows: LayerRows, count: int, frame: int) -> LayerRows:
    ones = np.ones(count, dtype=np.int64)
    return LayerRows(
        np.append(rows.position, rows.next_position + np.arange(count)),
        np.append(rows.frame, frame * ones),
        np.append(rows.time, np.zeros(count)),
        np.append(rows.weight, ones),
    )


def assert_same_choice(
    policy: Policy,
    rows: list[LayerRows],
    attention: list[NDArray[np.float32] | None],
    layer: int,
    ours: NDArray[np.int64],
    theirs: NDArray[np.int64],
) -> None:
    """Equal, or different only where scores are closer than 1e-6 relative."""
    ours_only, theirs_only = np.setdiff1d(ours, theirs), np.setdiff1d(theirs, ours)
    if len(ours_only) == 0 and len(theirs_only) == 0:
        return
    assert isinstance(policy, HermesPolicy)
    scores = policy.scores(rows, attention)[layer]
    prefix = len(rows[layer]) - len(scores)
    near, far = np.sort(scores[ours_only - prefix]), np.sort(scores[theirs_only - prefix])
    assert len(near) == len(far)
    np.testing.assert_allclose(near, far, rtol=1e-6, err_msg=f"layer {layer}: not a tie")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_attention_gives_the_recorded_memory(path: Path) -> None:
    facts, trace = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    layers = facts["layers"]
    policy = make_policy(
        "hermes-released",
        layers=layers,
        budget_rows=facts["budget"],
        max_positions=facts["max_position_embeddings"],
        reserve_rows=0,
        scoring=facts["scoring"],
        reindexing=facts["reindex"],
    )
    prefix = len(trace["prefix_ids"])
    nothing = LayerRows(
        np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64)
    )
    rows = [_grown(nothing, prefix, PREFIX_FRAME)] * layers
    compactions = 0
    for chunk, features in enumerate(trace["visual_features"]):
        rows = [_grown(layer, len(features), chunk) for layer in rows]
        assert [len(layer) for layer in rows] == trace[f"c{chunk}.len_before"].tolist()
        attention = [np.zeros(len(layer), dtype=np.float32) for layer in rows]
        if f"c{chunk}.attention" in trace:
            for layer, recorded in enumerate(trace[f"c{chunk}.attention"]):
                attention[layer][prefix:] = recorded[: len(attention[layer]) - prefix]
        plan = policy.plan(rows, attention)
        if f"c{chunk}.keep" in trace:
            compactions += 1
            assert plan is not None
            for layer, recorded in enumerate(trace[f"c{chunk}.keep"]):
                kept = recorded[recorded >= 0]
                assert_same_choice(policy, rows, [*attention], layer, plan[layer].keep, kept)
        if plan is not None:
            rows = [apply_plan(*pair) for pair in zip(rows, plan, strict=True)]
        assert [len(layer) for layer in rows] == trace[f"c{chunk}.len_after"].tolist()
        np.testing.assert_array_equal(
            np.stack([layer.position for layer in rows]), trace[f"c{chunk}.positions"]
        )
    assert compactions == facts["compactions"]
