"""Scoring and compaction as ONNX Runtime computes them, against loops in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from hermes_edge.contract import compact_graph, score_graph
from hermes_edge.export.memory_graphs import Compact, Score
from hermes_edge.export.trace import save, trace
from hermes_edge.spec import DecoderSpec, Precision

Float = npt.NDArray[np.float64]
Rows = npt.NDArray[np.floating[Any]]

SPEC = DecoderSpec(
    layers=1,
    embedding_width=64,
    query_heads=4,
    kv_heads=2,
    head_size=16,
    mlp_width=128,
    vocabulary=300,
    max_positions=2048,
    rope_theta=5000.0,
    rms_norm_eps=1e-6,
    tied_embeddings=True,
)
KV = (SPEC.kv_heads, SPEC.head_size)
DTYPES: dict[Precision, type[np.floating[Any]]] = {
    "fp32": np.float32,
    "fp16": np.float16,
}
# Relative to the largest value. fp16: one rounding of the result (2**-11), for scores none.
COMPACT_TOLERANCE: dict[Precision, float] = {"fp32": 2e-6, "fp16": 5e-4}
SCORE_TOLERANCE: dict[Precision, float] = {"fp32": 2e-6, "fp16": 2e-3}


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def precision(request: pytest.FixtureRequest) -> Precision:
    name: Precision = request.param
    return name


@pytest.fixture(scope="module")
def sessions(
    precision: Precision, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, onnxruntime.InferenceSession]:
    folder: Path = tmp_path_factory.mktemp(precision)
    save(trace(Score(), score_graph(SPEC, precision), 20), folder / "score.onnx")
    save(trace(Compact(SPEC), compact_graph(SPEC, precision), 20), folder / "compact.onnx")
    return {
        name: onnxruntime.InferenceSession(
            folder / f"{name}.onnx", providers=["CPUExecutionProvider"]
        )
        for name in ("score", "compact")
    }


def error(measured: Rows, expected: Float) -> float:
    assert measured.shape == expected.shape
    difference = np.abs(measured.astype(np.float64) - expected).max()
    return float(difference / np.abs(expected).max())


def turned(rows: Float, delta: int) -> Float:
    """Rows [H, D] turned by ``delta`` positions, pair by pair.

    Frequencies and angles are fp32, as the model defines them; all that follows is float64.
    """
    half = SPEC.head_size // 2
    result = rows.copy()
    for pair in range(half):
        power = np.float32(SPEC.rope_theta) ** np.float32(2 * pair / SPEC.head_size)
        angle = float(np.float32(delta) * (np.float32(1) / power))
        first, second = rows[:, pair], rows[:, pair + half]
        result[:, pair] = first * math.cos(angle) - second * math.sin(angle)
        result[:, pair + half] = second * math.cos(angle) + first * math.sin(angle)
    return result


def slabs(precision: Precision, rows: int) -> tuple[Rows, Rows]:
    generator = np.random.default_rng(7)
    keys, values = generator.standard_normal((2, rows, *KV)).astype(DTYPES[precision])
    return keys, values


@pytest.mark.parametrize(
    ("keep", "keep_delta", "fold", "fold_delta"),
    [
        ([0, 3, 4, 9], [0, 0, -2, -900], [5, 6, 7], [-1, 0, 400]),
        ([0, 1, 2], [5, 5, 5], [], []),
        ([], [], [2, 4], [10, 8]),
        ([3], [1], [8], [0]),
    ],
    ids=["both", "nothing to fold", "nothing to keep", "one each"],
)
def test_compact(
    precision: Precision,
    sessions: dict[str, onnxruntime.InferenceSession],
    keep: list[int],
    keep_delta: list[int],
    fold: list[int],
    fold_delta: list[int],
) -> None:
    keys, values = slabs(precision, 11)
    weight = np.linspace(1, 2, len(fold)).astype(np.float32)
    weight /= max(weight.sum(), 1)
    new_keys, new_values = sessions["compact"].run(
        None,
        {
            "keys": keys,
            "values": values,
            "keep": np.array(keep, np.int64),
            "keep_delta": np.array(keep_delta, np.int64),
            "fold": np.array(fold, np.int64),
            "fold_delta": np.array(fold_delta, np.int64),
            "fold_weight": weight,
        },
    )
    key_rows = keys.astype(np.float64)
    value_rows = values.astype(np.float64)
    expected_keys = [turned(key_rows[r], d) for r, d in zip(keep, keep_delta, strict=True)]
    summary = np.zeros((2, *KV))
    for row, delta, share in zip(fold, fold_delta, weight, strict=True):
        summary += share * np.stack((turned(key_rows[row], delta), value_rows[row]))
    tolerance = COMPACT_TOLERANCE[precision]
    assert error(new_keys, np.stack([*expected_keys, summary[0]])) <= tolerance
    assert error(new_values, np.stack([*(value_rows[r] for r in keep), summary[1]])) <= tolerance
    assert new_keys.dtype == new_values.dtype == DTYPES[precision]
    if not fold:
        assert not new_keys[-1].any() and not new_values[-1].any()


def test_delta_of_zero_changes_no_bit(
    precision: Precision, sessions: dict[str, onnxruntime.InferenceSession]
) -> None:
    keys, values = slabs(precision, 12)
    # Where a product or a fused selection would show: a zero with a sign, the smallest number.
    keys[3, 0, 0] = keys[4, 1, 9] = -0.0
    keys[5, 0, 1] = np.finfo(keys.dtype).smallest_subnormal
    none = np.zeros(0, np.int64)
    rows = np.arange(12, dtype=np.int64)
    new_keys, new_values = sessions["compact"].run(
        None,
        {
            "keys": keys,
            "values": values,
            "keep": rows,
            "keep_delta": np.zeros(12, np.int64),
            "fold": none,
            "fold_delta": none,
            "fold_weight": np.zeros(0, np.float32),
        },
    )
    assert new_keys[:12].tobytes() == keys.tobytes()
    assert new_values[:12].tobytes() == values.tobytes()


@pytest.mark.parametrize("rows", [0, 1, 37])
@pytest.mark.parametrize("probe_rows", [1, 5])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "all visible"])
def test_score(
    precision: Precision,
    sessions: dict[str, onnxruntime.InferenceSession],
    rows: int,
    probe_rows: int,
    causal: bool,
) -> None:
    generator = np.random.default_rng(rows)
    dtype = DTYPES[precision]
    queries = generator.standard_normal((probe_rows, SPEC.query_heads, SPEC.head_size))
    queries = queries.astype(dtype)
    keys: Rows = generator.standard_normal((rows, *KV)).astype(dtype)
    probe_keys: Rows = generator.standard_normal((probe_rows, *KV)).astype(dtype)
    visible = np.ones((probe_rows, probe_rows), bool)
    visible = np.tril(visible) if causal else visible
    (scores,) = sessions["score"].run(
        None, {"queries": queries, "keys": keys, "probe_keys": probe_keys, "visible": visible}
    )
    expected = np.zeros(rows)
    group = SPEC.query_heads // SPEC.kv_heads
    for head in range(SPEC.query_heads):
        seen = np.concatenate((keys, probe_keys))[:, head // group].astype(np.float64)
        for row in range(probe_rows):
            logits = seen @ queries[row, head].astype(np.float64) / math.sqrt(SPEC.head_size)
            logits[rows:][~visible[row]] = -np.inf
            shares = np.exp(logits - logits.max())
            expected += (shares / shares.sum())[:rows] / (SPEC.query_heads * probe_rows)
    assert scores.dtype == np.float32
    assert scores.shape == (rows,)
    if rows:
        assert error(scores, expected) <= SCORE_TOLERANCE[precision]
