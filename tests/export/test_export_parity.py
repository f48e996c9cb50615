"""Verification must pass on a sound bundle and fail on a damaged one, naming everything."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hermes_edge.errors import BundleError, CheckpointError, ParityError
from hermes_edge.export import verify_bundle
from hermes_edge.export.arithmetic import compact, rotate, score
from hermes_edge.export.bundle import file_records
from hermes_edge.manifest import MANIFEST_NAME, ParityReport, read_manifest

AGAINST_ORIGINAL = {
    "visual tokens",
    "keys",
    "values",
    "logits",
    "logits of the greedy answer",
    "greedy answer",
    "embedding probe queries",
    "embedding probe keys",
}
AGAINST_ITSELF = {
    "visual tokens, frame alone and among others",
    "keys, chunks and whole",
    "values, chunks and whole",
    "logits, chunks and whole",
    "keys of a frame, with and without probes",
    "probe queries, riding and alone",
    "probe keys, riding and alone",
    "scores",
    "compacted keys",
    "compacted values",
    "keys of unmoved rows that changed",
}


def names(report: ParityReport | None) -> set[str]:
    assert report is not None
    return {check.name for check in report.checks}


def damaged(
    bundle: Path, target: Path, graph: str, change: Callable[[onnx.ModelProto], None]
) -> Path:
    """A copy of a bundle with one graph changed and hashes that agree with it."""
    shutil.copytree(bundle, target)
    path = target / f"{graph}.onnx"
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    manifest = read_manifest(target)
    manifest = manifest.model_copy(update={"files": file_records(target)})
    (target / MANIFEST_NAME).write_text(manifest.to_json())
    return target


def scale_initializer(name: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        array = numpy_helper.to_array(tensor) * np.float32(factor)
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))

    return change


def test_export_compared_everything(llava_bundle: Path, qwen2_bundle: Path) -> None:
    report = read_manifest(llava_bundle).parity
    assert report is not None and report.reference.startswith("transformers ")
    assert names(report) == AGAINST_ORIGINAL | AGAINST_ITSELF
    seeing = {name for name in names(report) if "visual" in name or "embedding" in name}
    assert names(read_manifest(qwen2_bundle).parity) == names(report) - seeing


def test_verification_repeats_what_the_export_measured(shallow: Path, llava_bundle: Path) -> None:
    assert verify_bundle(llava_bundle, shallow) == read_manifest(llava_bundle).parity


def test_a_bundle_can_be_held_against_itself(llava_bundle: Path, qwen2_bundle: Path) -> None:
    report = verify_bundle(llava_bundle)
    assert report.passed and report.reference == "the bundle itself"
    assert names(report) == AGAINST_ITSELF
    assert verify_bundle(qwen2_bundle).passed


def test_wrong_weights_are_found(shallow: Path, llava_bundle: Path, tmp_path: Path) -> None:
    bundle = damaged(
        llava_bundle, tmp_path / "bundle", "decoder", scale_initializer("layers.1.down", 1.01)
    )
    with pytest.raises(ParityError) as caught:
        verify_bundle(bundle, shallow)
    message = str(caught.value)
    assert " comparisons of the exported graphs with transformers " in message
    for name in ("keys", "values", "logits", "logits of the greedy answer"):
        assert f"{name}: required at most 0.0001 of the maximum, found 0.0" in message
    assert "chunks and whole" not in message
    assert verify_bundle(bundle).passed


def test_wrong_arithmetic_is_found_without_a_checkpoint(llava_bundle: Path, tmp_path: Path) -> None:
    bundle = damaged(
        llava_bundle, tmp_path / "bundle", "compact", scale_initializer("inv_freq", 1.001)
    )
    with pytest.raises(ParityError) as caught:
        verify_bundle(bundle)
    assert str(caught.value).startswith(
        "1 comparisons of the exported graphs with the bundle itself failed: "
        "compacted keys: required at most 1e-05 of the maximum, found "
    )


def test_cached_rows_that_are_not_used_are_found(llava_bundle: Path, tmp_path: Path) -> None:
    def take_keys_for_values(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                if name == "past_key_values.3.value":
                    node.input[index] = "past_key_values.3.key"

    bundle = damaged(llava_bundle, tmp_path / "bundle", "decoder", take_keys_for_values)
    with pytest.raises(ParityError) as caught:
        verify_bundle(bundle)
    assert "logits, chunks and whole: required at most 0.0001" in str(caught.value)


def test_wrong_names_and_wrong_values_are_reported_together(
    shallow: Path, llava_bundle: Path, tmp_path: Path
) -> None:
    def rename(model: onnx.ModelProto) -> None:
        old = model.graph.output[0].name
        model.graph.output[0].name = "logit"
        for node in model.graph.node:
            for index, name in enumerate(node.output):
                if name == old:
                    node.output[index] = "logit"

    first = damaged(llava_bundle, tmp_path / "first", "decoder", rename)
    bundle = damaged(first, tmp_path / "second", "vision", scale_initializer("position", 1.1))
    with pytest.raises(ParityError) as caught:
        verify_bundle(bundle, shallow)
    message = str(caught.value)
    assert message.startswith("2 comparisons of the exported graphs")
    assert "required logits float32 [R, 512], found no logits" in message
    assert "required no such tensor, found logit float32 [R, 512]" in message
    assert "visual tokens: required at most 0.0001 of the maximum, found " in message


def test_a_damaged_file_is_a_bundle_error(llava_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(llava_bundle, tmp_path / "bundle")
    with (bundle / "score.onnx").open("r+b") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(BundleError, match=r"score\.onnx: required sha256 "):
        verify_bundle(bundle)


def test_another_checkpoint_is_refused(llava_bundle: Path, qwen2: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        verify_bundle(llava_bundle, qwen2)
    assert str(caught.value).startswith(
        f"{qwen2} is not what {llava_bundle} was exported from: required DecoderSpec(layers=4,"
    )


def test_arithmetic_of_scores() -> None:
    generator = np.random.default_rng(0)
    queries, keys = generator.normal(size=(3, 4, 8)), generator.normal(size=(5, 2, 8))
    probe_keys = generator.normal(size=(3, 2, 8))
    nothing = np.zeros((3, 3), bool)
    assert score(queries, keys, probe_keys, nothing).sum() == pytest.approx(1)
    assert score(queries, keys, probe_keys, ~nothing).sum() < 0.9
    # With queries of zero every visible row gets the same share.
    shares = score(0 * queries, keys, probe_keys, np.tri(3, dtype=bool))
    assert shares == pytest.approx((1 / 6 + 1 / 7 + 1 / 8) / 3)


def test_arithmetic_of_compaction() -> None:
    generator = np.random.default_rng(1)
    keys = generator.normal(size=(4, 2, 8))
    at = np.arange(4)
    # What counts for attention is the distance of two rows alone.
    near, far = rotate(keys, at, 1e4), rotate(keys, at + 100, 1e4)
    assert (near[0] * near[3]).sum() == pytest.approx((far[0] * far[3]).sum())
    assert rotate(near, np.full(4, 100), 1e4) == pytest.approx(far)
    rows = {
        "keys": keys,
        "values": -keys,
        "keep": np.array([1]),
        "keep_delta": np.array([0]),
        "fold": np.array([], np.int64),
        "fold_delta": np.array([], np.int64),
        "fold_weight": np.array([], np.float32),
    }
    new_keys, new_values = compact(rows, 1e4)
    assert np.array_equal(new_keys, [keys[1], np.zeros((2, 8))])
    assert np.array_equal(new_values, [-keys[1], np.zeros((2, 8))])
