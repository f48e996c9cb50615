"""Bundles without tokenizer, vision tower or embedding probe: what works, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hermes_edge.engines.views import Array
from hermes_edge.errors import BundleError, QuestionError, SettingsError
from hermes_edge.runtime import ProbeTokens, Runtime, SamplingParams

VisualTokens = Callable[[int, int], Array]
SHORT = SamplingParams(max_new_tokens=4)


@pytest.fixture(scope="module")
def textless(random_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """The bundle without tokenizer, vision tower and embedding probe."""
    folder = tmp_path_factory.mktemp("textless") / "bundle"
    shutil.copytree(random_bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    gone = {"tokenizer.json", "chat_template.jinja", "vision.onnx", "embedding_probe.onnx"}
    for name in gone:
        (folder / name).unlink()
    manifest["files"] = [record for record in manifest["files"] if record["path"] not in gone]
    manifest["vision"] = None
    del manifest["graphs"]["vision"], manifest["graphs"]["embedding_probe"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Runtime.load(folder, threads=1)


def test_a_bundle_without_tokenizer_takes_ids_alone(
    textless: Runtime, visual_tokens: VisualTokens
) -> None:
    probes = ProbeTokens((5, 6), (7,))
    session = textless.session(
        budget_tokens=64, chunk_frames=4, prefix_ids=[1, 3, 4], probes=lambda _: probes
    )
    session.feed_tokens(visual_tokens(9, 4), 0.0)
    answer = session.ask([5, 6, 7], SHORT)
    assert (answer.text, len(answer.token_ids)) == ("", 4)
    with pytest.raises(QuestionError) as caught:
        session.ask("What?")
    assert str(caught.value) == "this bundle has no tokenizer: required token ids, found text"


def test_a_memory_without_vision_and_text_is_restored(
    textless: Runtime, visual_tokens: VisualTokens, tmp_path: Path
) -> None:
    session = textless.session(policy="window", budget_tokens=64, chunk_frames=4, prefix_ids=[1, 3])
    session.feed_tokens(visual_tokens(9, 4), 2.0)
    restored = textless.restore(session.save(tmp_path / "one.safetensors").path)
    assert restored.memory() == session.memory()
    for each in (session, restored):
        each.feed_tokens(visual_tokens(7, 5), 3.0)
    assert restored.ask([5, 6, 7], SHORT).token_ids == session.ask([5, 6, 7], SHORT).token_ids


def test_a_bundle_without_tokenizer_needs_prefix_and_probes(textless: Runtime) -> None:
    with pytest.raises(SettingsError) as caught:
        textless.session(budget_tokens=256)
    assert str(caught.value) == (
        "this bundle has no tokenizer: required prefix_ids, found none given"
    )
    with pytest.raises(SettingsError) as caught:
        textless.session(budget_tokens=256, prefix_ids=[1])
    assert str(caught.value) == (
        "the policy hermes scores with probes and this bundle has no tokenizer: required the "
        "argument probes, found none given. Give probes, or choose the policy window or uniform"
    )
    assert textless.session(budget_tokens=256, prefix_ids=[1], policy="window").memory().rows == 1


def test_a_bundle_without_vision_takes_visual_tokens_alone(textless: Runtime) -> None:
    session = textless.session(budget_tokens=256, prefix_ids=[1], policy="window")
    with pytest.raises(BundleError) as caught:
        session.feed(np.zeros((32, 32, 3), dtype=np.uint8), 0.0)
    assert str(caught.value) == (
        "this bundle has no vision graph. Give visual tokens with feed_tokens()"
    )


def test_embedding_scoring_needs_its_graph(textless: Runtime) -> None:
    with pytest.raises(BundleError) as caught:
        textless.session(
            budget_tokens=256,
            prefix_ids=[1],
            policy="hermes-released",
            probes=lambda _: ProbeTokens((5,), (6,)),
        )
    assert str(caught.value) == (
        f"{textless.bundle.path} has no embedding_probe graph: found compact, decoder, score. "
        "Export again with: hermes-edge export CHECKPOINT -o BUNDLE --embedding-probe"
    )
