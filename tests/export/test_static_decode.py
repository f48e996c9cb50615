"""The decoder that is told how many of the bound rows each layer sees."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from hermes_edge.contract import decoder_graph, is_static, past_key, past_value
from hermes_edge.engines import Bundle
from hermes_edge.engines.precision import compare_with_cpu
from hermes_edge.engines.trt.profiles import Limits, profiles_for
from hermes_edge.engines.views import CpuDevice, View
from hermes_edge.errors import BundleError, ParityError
from hermes_edge.export import verify_bundle
from hermes_edge.export.bundle import file_records
from hermes_edge.export.calls import Caches
from hermes_edge.export.lint import lint_bundle
from hermes_edge.manifest import MANIFEST_NAME, read_manifest

LENGTHS = {"logits, layers in slabs and cut to length", "values, layers in slabs and cut to length"}


def test_one_input_stands_in_for_another(static_bundle: Path, random_bundle: Path) -> None:
    manifest = read_manifest(static_bundle)
    assert manifest.static_decode and not read_manifest(random_bundle).static_decode
    growing = decoder_graph(manifest.decoder, manifest.precision)
    static = manifest.graphs["decoder"]
    ours, theirs = ({str(t) for t in (*g.inputs, *g.outputs)} for g in (static, growing))
    assert ours - theirs == {"past_rows int64 [10]"}
    assert theirs - ours == {"past_visible bool [1]"}


def test_the_export_compared_it_with_rows_behind_that_nobody_may_see(static_bundle: Path) -> None:
    report = read_manifest(static_bundle).parity
    assert report is not None and report.passed
    assert report.reference.startswith("transformers ")
    names = {check.name for check in report.checks}
    assert names >= {"keys", "logits", "greedy answer", "logits, chunks and whole", *LENGTHS}


@pytest.mark.parametrize("version", [(10, 3), (11, 4)])
def test_tensorrt_would_take_the_static_graphs(
    static_bundle: Path, version: tuple[int, int]
) -> None:
    assert lint_bundle(static_bundle, version) == []


def compare_wrongly(model: onnx.ModelProto, layer: int) -> None:
    """A layer that sees one row more than it is told."""
    less = [node for node in model.graph.node if node.op_type == "Less"]
    assert len(less) == 10
    less[layer].op_type = "LessOrEqual"


@pytest.mark.parametrize("layer", [0, 9])
def test_a_row_too_many_is_found_in_any_layer(
    static_bundle: Path, small_decoder: Path, tmp_path: Path, layer: int
) -> None:
    bundle = shutil.copytree(static_bundle, tmp_path / "bundle")
    model = onnx.load(bundle / "decoder.onnx")
    compare_wrongly(model, layer)
    onnx.save(model, bundle / "decoder.onnx")
    manifest = read_manifest(bundle).model_copy(update={"files": file_records(bundle)})
    (bundle / MANIFEST_NAME).write_text(manifest.to_json())
    with pytest.raises(ParityError) as alone:
        verify_bundle(bundle)
    assert "logits, layers in slabs and cut to length: required at most 0.0001" in str(alone.value)
    if layer == 9:
        with pytest.raises(ParityError) as beside:
            verify_bundle(bundle, small_decoder)
        assert "logits of the greedy answer: required at most 0.0001" in str(beside.value)


def test_what_lies_behind_the_rows_does_not_count(static_bundle: Path) -> None:
    """To the bit, with and without a memory, whatever the layers' lengths are."""
    bundle = Bundle.open(static_bundle)
    engine, spec = bundle.engine("decoder", threads=1), bundle.manifest.decoder
    rows = np.random.default_rng(0).normal(size=(12, spec.embedding_width))
    for lengths in ([0] * 10, [11] * 10, [0, 3, 11, 7, 1, 2, 0, 11, 5, 4]):
        caches = Caches(engine, spec, unseen_rows=9)
        caches.append(caches.run(rows[:11]))
        first = caches.run(rows[11:], logit_rows=[0], past_rows=lengths)
        caches._unseen = -30 * caches._unseen
        other = caches.run(rows[11:], logit_rows=[0], past_rows=lengths)
        np.testing.assert_array_equal(first.logits, other.logits)
        np.testing.assert_array_equal(first.values, other.values)
        if not any(lengths):
            nothing = Caches(engine, spec).run(rows[11:], logit_rows=[0], positions=[11])
            np.testing.assert_allclose(nothing.logits, first.logits, rtol=1e-5, atol=1e-5)


def test_a_manifest_of_the_other_kind_is_refused(static_bundle: Path, tmp_path: Path) -> None:
    """The file decides what can be bound; a manifest that says otherwise is named."""
    bundle = shutil.copytree(static_bundle, tmp_path / "bundle")
    manifest = read_manifest(bundle)
    record = manifest.graphs["decoder"]
    growing = decoder_graph(manifest.decoder, manifest.precision)
    graphs = {**manifest.graphs, "decoder": record.model_copy(update={"inputs": growing.inputs})}
    changed = manifest.model_copy(update={"graphs": graphs})
    (bundle / MANIFEST_NAME).write_text(changed.to_json())
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle).engine("decoder")
    assert "required past_visible bool [1], found no past_visible" in str(caught.value)
    assert "required no such tensor, found past_rows int64 [10]" in str(caught.value)


def test_profiles_of_a_static_decoder(static_bundle: Path) -> None:
    limits = Limits(capacity_rows=300, pass_rows=96, probe_rows=96, frames=2)
    graph = Bundle.open(static_bundle).graph("decoder")
    assert is_static(graph.inputs)
    for profile in profiles_for(graph, limits):
        assert profile["past_rows"].least == profile["past_rows"].most == (10,)
        assert profile[past_key(3)].usual == profile[past_value(0)].most == (300, 2, 32)


def test_precision_is_checked_on_whole_slabs(static_bundle: Path) -> None:
    """ONNX Runtime against itself, of which one would see a row too many."""
    bundle = Bundle.open(static_bundle)
    limits = Limits(capacity_rows=300, pass_rows=96, probe_rows=96, frames=2)
    bound: list[tuple[int, ...]] = []

    class Watched:
        graph = bundle.graph("decoder")

        def __init__(self) -> None:
            self._engine = bundle.engine("decoder", exact=True)

        def run(self, inputs: Mapping[str, View], outputs: Mapping[str, View]) -> None:
            bound.append((len(inputs["inputs_embeds"]), len(inputs[past_key(0)])))
            self._engine.run(inputs, outputs)

    check = compare_with_cpu(bundle, "decoder", limits, CpuDevice(), lambda name: Watched())
    assert check.measured == 0
    assert bound == [(48, 1), (48, 48), *[(1, 300)] * 3]
