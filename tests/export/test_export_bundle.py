"""What an export writes, and that it writes it whole or not at all."""

from __future__ import annotations

import json
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hermes_edge.contract import score_graph
from hermes_edge.engines import Bundle
from hermes_edge.errors import SettingsError, StorageError
from hermes_edge.export import export_checkpoint
from hermes_edge.export.bundle import staged
from hermes_edge.export.checkpoint import Checkpoint
from hermes_edge.export.memory_graphs import Score
from hermes_edge.export.trace import save, trace
from hermes_edge.manifest import MANIFEST_NAME, read_manifest

pytestmark = pytest.mark.slow

GRAPHS = ["vision", "decoder", "score", "compact", "embedding_probe"]


def test_manifest_tells_the_model(shallow: Path, llava_bundle: Path) -> None:
    manifest = read_manifest(llava_bundle)
    config = Checkpoint.open(shallow).config
    assert (manifest.decoder, manifest.vision) == (config.decoder, config.vision)
    assert manifest.model_id == "llava"
    assert (manifest.family, manifest.precision) == ("llava_onevision", "fp32")
    assert manifest.random_weights
    assert (manifest.tokens_per_frame, manifest.chunk_frames) == (16, 16)
    assert (manifest.video_token, manifest.eos_token_ids) == ("<video>", (2,))
    assert list(manifest.graphs) == GRAPHS
    assert manifest.parity is not None and manifest.parity.passed
    assert {"python", "hermes_edge", "torch", "transformers", "onnxruntime"} <= set(manifest.tools)


def test_manifest_of_a_decoder_alone(qwen2_bundle: Path) -> None:
    manifest = read_manifest(qwen2_bundle)
    assert (manifest.family, manifest.precision) == ("qwen2", "fp16")
    assert (manifest.vision, manifest.video_token, manifest.eos_token_ids) == (None, None, (5,))
    assert (manifest.tokens_per_frame, manifest.chunk_frames) == (4, 2)
    assert not manifest.random_weights
    assert {graph.opset for graph in manifest.graphs.values()} == {23}


def test_bundle_opens_and_every_graph_fits_the_contract(
    llava_bundle: Path, qwen2_bundle: Path
) -> None:
    for folder in (llava_bundle, qwen2_bundle):
        bundle = Bundle.open(folder)
        for name in bundle.manifest.graphs:
            assert bundle.engine(name).graph == bundle.graph(name)


def test_every_file_is_listed_and_readable(llava_bundle: Path) -> None:
    listed = {record.path for record in read_manifest(llava_bundle).files}
    assert listed | {MANIFEST_NAME} == {path.name for path in llava_bundle.iterdir()}
    assert {"tokenizer.json", "chat_template.jinja", "embeddings.safetensors"} < listed
    for path in llava_bundle.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert sum(path.stat().st_size for path in llava_bundle.iterdir()) < 1_600_000


def test_graphs_hold_no_path_of_this_machine(llava_bundle: Path) -> None:
    for path in llava_bundle.glob("*.onnx"):
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert b".py" not in content


def test_a_graph_traced_twice_is_the_same_file(llava_bundle: Path, tmp_path: Path) -> None:
    graph = score_graph(read_manifest(llava_bundle).decoder, "fp32")
    save(trace(Score(), graph, 20), tmp_path / "score.onnx")
    assert (tmp_path / "score.onnx").read_bytes() == (llava_bundle / "score.onnx").read_bytes()


def test_progress_reports_every_stage_once(llava_bundle: Path) -> None:
    events, nbytes = json.loads((llava_bundle.parent / "progress.json").read_text())
    stages = ["checkpoint", *GRAPHS, "embeddings", "hashes", "reference", "parity"]
    assert events == [[what, stage] for stage in stages for what in ("started", "finished")]
    assert nbytes["decoder"] == (llava_bundle / "decoder.onnx").stat().st_size
    assert nbytes["parity"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 21}, "unsupported opset: required 20 or 23, found 21"),
        ({"precision": "int8"}, "unsupported precision: required fp32 or fp16 or bf16, found int8"),
        ({"chunk_frames": 0}, "chunk_frames is too small: required at least 1, found 0"),
        (
            {"tokens_per_frame": 9},
            "tokens_per_frame does not fit the vision tower: required 16, or none given, found 9",
        ),
    ],
)
def test_options_are_checked(
    llava: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        export_checkpoint(llava, tmp_path / "bundle", **options)
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


def test_a_decoder_alone_needs_tokens_per_frame(qwen2: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        export_checkpoint(qwen2, tmp_path / "bundle")
    assert str(caught.value) == (
        "qwen2 has no vision tower to tell the tokens of a frame: "
        "required tokens_per_frame of at least 1, found none"
    )


def test_an_existing_bundle_is_replaced_only_when_told(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    for text, overwrite in (("old", False), ("new", True)):
        with staged(target, 1, overwrite=overwrite) as staging:
            (staging.folder / MANIFEST_NAME).write_text(text)
        assert (target / MANIFEST_NAME).read_text() == text
    with pytest.raises(StorageError) as caught, staged(target, 1, overwrite=False):
        pytest.fail("the block must not run")
    assert str(caught.value) == (
        f"{target} exists: required a new name, found a bundle. Add --overwrite to replace it"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("precious")
    for path, kind in ((folder, "a folder"), (file, "a file")):
        with pytest.raises(StorageError) as caught, staged(path, 1, overwrite=overwrite):
            pytest.fail("the block must not run")
        assert str(caught.value) == (
            f"{path} exists and is not a bundle: "
            f"required a new name, or a bundle to replace, found {kind}"
        )
    assert file.read_text() == "precious"


def test_a_failed_export_leaves_the_old_bundle_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with staged(target, 1, overwrite=False) as staging:
        (staging.folder / MANIFEST_NAME).write_text("old")
    with pytest.raises(KeyboardInterrupt), staged(target, 1, overwrite=True) as staging:
        (staging.folder / MANIFEST_NAME).write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (target / MANIFEST_NAME).read_text() == "old"


def test_a_disk_that_is_too_small_is_refused_first(tmp_path: Path) -> None:
    target = tmp_path / "new" / "bundle"
    with pytest.raises(StorageError) as caught, staged(target, 1 << 62, overwrite=False):
        pytest.fail("the block must not run")
    start = f"not enough room for {target}: required about {1 << 62} bytes, found "
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(" bytes free. Make room or choose another place")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_files() -> Iterator[None]:
    """Writes beyond 20 kB fail in this process, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_becomes_full_leaves_nothing(
    qwen2: Path, tmp_path: Path, small_files: None
) -> None:
    target = tmp_path / "bundle"
    with pytest.raises(StorageError) as caught:
        export_checkpoint(qwen2, target, tokens_per_frame=4)
    assert str(caught.value).startswith(
        f"cannot write {target}: File too large: required about 251136 bytes, found "
    )
    assert str(caught.value).endswith(
        " bytes free. Nothing was left behind; make room or choose another place, and export again"
    )
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_no_folder_is_named(qwen2: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "bundle"
    with pytest.raises(StorageError) as caught:
        export_checkpoint(qwen2, target, tokens_per_frame=4)
    assert str(caught.value).startswith(f"cannot write {target}: ")


def test_missing_packages_are_named() -> None:
    code = "import hermes_edge.export"
    # Without site-packages nothing but the standard library is there.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode != 0
    packages = "torch, transformers, onnx, onnxscript, onnxruntime, huggingface_hub"
    assert done.stderr.splitlines()[-1] == (
        "hermes_edge.errors.DependencyError: exporting needs more packages: "
        f"required {packages}, found no {packages}. "
        "Install them with: pip install 'hermes-edge[export]'"
    )
