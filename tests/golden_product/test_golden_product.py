"""The released code's traces, reproduced through the whole product path.

The traces' decoder is exported to ONNX, runs in ONNX Runtime on the slabs, is scored, compacted,
asked and rolled back by a real session; only text ids come from the trace, for its tokenizer was
a toy.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hermes_edge.export import export_checkpoint
from hermes_edge.memory.base import Float32Array, LayerRows, Plan
from hermes_edge.runtime import ProbeTokens, Runtime, SamplingParams, Session

pytestmark = pytest.mark.slow

GOLDEN = Path(os.environ.get("HERMES_EDGE_GOLDEN", Path(__file__).parents[1] / "golden"))
TRACES = sorted(GOLDEN.glob("*.json"))
CACHE_TOLERANCE = 2e-3
TIE_TOLERANCE = 1e-6


class RecordingPolicy:
    """Passes everything on to the session's policy and keeps what it planned."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self.plan_made: Plan | None = None
        self.attention: Sequence[Float32Array | None] = ()
        self.scores: list[Float32Array] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def plan(
        self, rows: Sequence[LayerRows], attention: Sequence[Float32Array | None]
    ) -> Plan | None:
        self.attention = attention
        self.plan_made = self._policy.plan(rows, attention)
        if self.plan_made is not None:
            self.scores = self._policy.scores(rows, attention)
        return self.plan_made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The traces' decoder, exported."""
    facts = json.loads(TRACES[0].read_text())
    folder = tmp_path_factory.mktemp("golden")
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_hidden_layers": facts["layers"],
        "hidden_size": facts["hidden"],
        "num_attention_heads": facts["heads"],
        "num_key_value_heads": facts["kv_heads"],
        "intermediate_size": facts["inter"],
        "vocab_size": facts["vocab"],
        "max_position_embeddings": facts["max_position_embeddings"],
        "rope_theta": facts["rope_theta"],
        "rms_norm_eps": facts["rms_eps"],
        "eos_token_id": facts["eos"],
        "tie_word_embeddings": False,
        "hidden_act": "silu",
    }
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "config.json").write_text(json.dumps(config))
    shutil.copy(GOLDEN / "model.safetensors", folder / "checkpoint")
    export_checkpoint(
        folder / "checkpoint",
        folder / "bundle",
        tokens_per_frame=facts["tokens_per_frame"],
        chunk_frames=facts["frames_per_chunk"],
        embedding_probe=True,
        verify=False,
    )
    return folder / "bundle"


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def runtime(bundle: Path, request: pytest.FixtureRequest) -> Runtime:
    return Runtime.load(bundle, device=request.param, threads=1)


def check_choice(
    policy: RecordingPolicy, layer: int, recorded: NDArray[np.int64], prefix: int
) -> None:
    """The same rows, or others whose scores are a tie."""
    assert policy.plan_made is not None
    ours, theirs = policy.plan_made[layer].keep, recorded[recorded >= 0]
    mine, other = np.setdiff1d(ours, theirs), np.setdiff1d(theirs, ours)
    assert len(ours) == len(theirs), f"layer {layer}"
    scores = policy.scores[layer]
    np.testing.assert_allclose(
        np.sort(scores[mine - prefix]),
        np.sort(scores[other - prefix]),
        rtol=TIE_TOLERANCE,
        err_msg=f"layer {layer}: rows {mine} instead of {other}, and not a tie",
    )


def check_attention(
    policy: RecordingPolicy, layer: int, recorded: NDArray[np.float32], prefix: int
) -> None:
    """Sensory layers are not scored; the others as recorded."""
    attention = policy.attention[layer]
    if policy.probe_kind(layer) is None:
        assert attention is None
        return
    assert attention is not None
    visual = attention[prefix:]
    np.testing.assert_allclose(visual, recorded[: len(visual)], rtol=1e-3, atol=1e-6)


def check_answer(session: Session, trace: Any, chunk: int, facts: dict[str, Any]) -> None:
    """The recorded tokens, and a memory that is bit-identical afterwards."""
    before = slab_bytes(session)
    params = SamplingParams(max_new_tokens=12, repetition_penalty=facts["repetition_penalty"])
    answer = session.ask(trace[f"c{chunk}.question_ids"].tolist(), params)
    recorded = [token for token in trace[f"c{chunk}.answer_ids"].tolist() if token != facts["eos"]]
    assert list(answer.token_ids) == recorded
    assert slab_bytes(session) == before
    check_memory(session, trace[f"c{chunk}.positions"])


def check_cache(session: Session, trace: Any) -> None:
    """Rotated keys and values of the recorded layers."""
    store, download = session._parts.store, session._parts.runner.download
    layers = [int(name.removeprefix("final.k")) for name in trace if name.startswith("final.k")]
    assert layers
    for layer in layers:
        keys, values = map(download, store.committed(layer))
        for ours, name in ((keys, f"final.k{layer}"), (values, f"final.v{layer}")):
            difference = np.abs(ours.transpose(1, 0, 2) - trace[name]).max()
            assert difference < CACHE_TOLERANCE, f"{name} differs by {difference:.2e}"


def check_memory(session: Session, positions: NDArray[np.int64]) -> None:
    np.testing.assert_array_equal(np.stack([r.position for r in session.rows()]), positions)


def slab_bytes(session: Session) -> list[bytes]:
    store, download = session._parts.store, session._parts.runner.download
    layers = range(len(store.rows))
    return [download(view).tobytes() for layer in layers for view in store.committed(layer)]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_session_reproduces_the_trace(path: Path, runtime: Runtime) -> None:
    facts, trace = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    chunk_probes = ProbeTokens((), ())
    session = runtime.session(
        budget_tokens=facts["budget"],
        policy="hermes-released",
        scoring=facts["scoring"],
        reindexing=facts["reindex"],
        prefix_ids=trace["prefix_ids"].tolist(),
        reserve_tokens=512,
        probes=lambda _: chunk_probes,
    )
    recorder = RecordingPolicy(session._parts.encoder._policy)
    session._parts.encoder._policy = recorder
    prefix = len(trace["prefix_ids"])
    compactions = questions = 0
    for chunk, features in enumerate(trace["visual_features"]):
        chunk_probes = ProbeTokens(
            tuple(trace[f"c{chunk}.mixed_ids"].tolist()),
            tuple(trace[f"c{chunk}.global_ids"].tolist()),
        )
        session.feed_tokens(features, at=float(chunk))
        if f"c{chunk}.keep" in trace:
            compactions += 1
            for layer, kept in enumerate(trace[f"c{chunk}.keep"]):
                check_choice(recorder, layer, kept, prefix)
                check_attention(recorder, layer, trace[f"c{chunk}.attention"][layer], prefix)
        check_memory(session, trace[f"c{chunk}.positions"])
        if f"c{chunk}.question_ids" in trace:
            questions += 1
            check_answer(session, trace, chunk, facts)
    assert compactions == facts["compactions"]
    assert questions > 0
    check_cache(session, trace)
