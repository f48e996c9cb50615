"""What is planned agrees with what is there: bundles, checkpoints, and headers alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hermes_edge.errors import CheckpointError, SettingsError
from hermes_edge.manifest import read_manifest
from hermes_edge.planning.subject import open_subject
from hermes_edge.shipped import TINY_BUNDLE, TINY_CHECKPOINT
from hermes_edge.spec import Quantization


def test_a_checkpoint_and_its_bundle_are_one_subject() -> None:
    bundle, checkpoint = open_subject(str(TINY_BUNDLE)), open_subject(str(TINY_CHECKPOINT), "fp32")
    assert bundle.decoder == checkpoint.decoder
    assert bundle.vision == checkpoint.vision
    assert bundle.decoder_bytes == checkpoint.decoder_bytes
    assert bundle.vision_bytes == checkpoint.vision_bytes
    assert bundle.frames.tokens == checkpoint.frames.tokens == 16
    assert bundle.prefix_tokens == checkpoint.prefix_tokens == 13
    assert not bundle.prefix_assumed and not checkpoint.prefix_assumed


def test_weights_are_those_of_the_graphs() -> None:
    """A graph's file is its weights, its nodes and the rotary table."""
    subject, manifest = open_subject(str(TINY_BUNDLE)), read_manifest(TINY_BUNDLE)
    nbytes = {record.path: record.bytes for record in manifest.files}
    for name, planned in (("decoder", subject.decoder_bytes), ("vision", subject.vision_bytes)):
        stored = sum(size for path, size in nbytes.items() if path.startswith(f"{name}.onnx"))
        assert planned < stored < 1.02 * planned


def test_half_precision_halves_the_weights() -> None:
    whole, half = (open_subject(str(TINY_CHECKPOINT), dtype) for dtype in ("fp32", "fp16"))
    assert whole.decoder_bytes == 2 * half.decoder_bytes
    assert whole.vision_bytes == 2 * half.vision_bytes
    assert whole.table_bytes == 2 * half.table_bytes


def test_the_configuration_alone_is_enough(tmp_path: Path) -> None:
    shutil.copy(TINY_CHECKPOINT / "config.json", tmp_path)
    assert open_subject(str(tmp_path)).decoder == open_subject(str(TINY_CHECKPOINT)).decoder


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    shutil.copytree(TINY_CHECKPOINT, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(
        config.read_text().replace('"intermediate_size": 384', '"intermediate_size": 400')
    )
    with pytest.raises(
        CheckpointError, match=r"^30 tensors have another shape than config\.json says"
    ):
        open_subject(str(tmp_path / "other"))


def test_a_bundle_has_its_own_precision() -> None:
    with pytest.raises(SettingsError) as caught:
        open_subject(str(TINY_BUNDLE), "fp16")
    assert str(caught.value) == (
        f"{TINY_BUNDLE} is exported already: required fp32, found fp16. "
        "Leave --dtype out, or plan its checkpoint"
    )


def test_blocks_must_fit() -> None:
    with pytest.raises(SettingsError) as caught:
        open_subject(str(TINY_CHECKPOINT), "fp16", quantization=Quantization(4, 128))
    assert str(caught.value) == (
        "blocks of 128 do not fit the decoder's matrices: required inputs that are multiples of "
        "128, found 192, 256, 384. Export with --block 32, or --dtype int8"
    )


def test_text_files_that_cannot_be_used(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY_CHECKPOINT, tmp_path / "checkpoint"))
    (folder / "chat_template.jinja").write_text("{{ messages[0]")
    with pytest.raises(CheckpointError) as caught:
        open_subject(str(folder))
    text = str(caught.value)
    assert text.startswith(
        "the text files of checkpoint cannot be used: required a tokenizer, and a chat template "
        "with one video, found "
    )
    assert "hermes-edge-" not in text


@pytest.mark.parametrize("source", [TINY_BUNDLE, TINY_CHECKPOINT])
def test_tokens_of_a_frame_are_the_model_s(source: Path) -> None:
    assert open_subject(str(source), tokens_per_frame=16).frames.tokens == 16
    with pytest.raises(SettingsError) as caught:
        open_subject(str(source), tokens_per_frame=-7)
    assert str(caught.value) == (
        f"--tokens-per-frame does not fit hermes-tiny{'-checkpoint' * (source == TINY_CHECKPOINT)}"
        ": required 16, or none given, found -7"
    )
