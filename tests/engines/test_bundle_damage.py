"""Damaged bundles: every fault is named, all at once, before anything runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_edge.engines import Bundle
from hermes_edge.errors import BundleError, EngineError
from hermes_edge.manifest import sha256_of

Edit = Callable[[dict[str, Any]], None]
REEXPORT = "Export again with: hermes-edge export CHECKPOINT -o BUNDLE"
MEND = "Copy the bundle again, or export it again with: hermes-edge export CHECKPOINT -o BUNDLE"


@pytest.fixture()
def bundle(random_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(random_bundle, tmp_path / "bundle")


def edit_manifest(bundle: Path, edit: Edit) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    """Another content with the size and hash that the manifest demands."""
    path = bundle / name
    path.write_bytes(content)

    def fix(document: dict[str, Any]) -> None:
        record = next(r for r in document["files"] if r["path"] == name)
        record.update(bytes=len(content), sha256=sha256_of(path))

    edit_manifest(bundle, fix)


def refusal(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle)
    return str(caught.value)


def test_the_copy_is_sound(bundle: Path) -> None:
    assert Bundle.open(bundle).manifest.decoder.layers == 10


def test_no_such_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        f"{tmp_path / 'none'} is not a bundle: required a folder with manifest.json, found no such "
        "folder. Make one with: hermes-edge export CHECKPOINT -o BUNDLE"
    )
    assert "found a folder without it" in refusal(tmp_path)


def test_a_truncated_file(bundle: Path) -> None:
    path = bundle / "decoder.onnx"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(bundle) == (
        f"{bundle} cannot be used: decoder.onnx: required {size} bytes, found {size - 1}. {MEND}"
    )
    with pytest.raises(BundleError, match=f"required {size} bytes"):
        Bundle.open(bundle, check_hashes=False)


def test_a_flipped_bit(bundle: Path) -> None:
    path = bundle / "embeddings.safetensors"
    good = sha256_of(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert refusal(bundle) == (
        f"{bundle} cannot be used: embeddings.safetensors: required sha256 {good}, "
        f"found {sha256_of(path)}. {MEND}"
    )
    Bundle.open(bundle, check_hashes=False)


def test_a_missing_file(bundle: Path) -> None:
    size = (bundle / "score.onnx").stat().st_size
    (bundle / "score.onnx").unlink()
    assert refusal(bundle) == (
        f"{bundle} cannot be used: score.onnx: required {size} bytes, found no file. {MEND}"
    )


def test_a_manifest_that_is_no_file(bundle: Path) -> None:
    """Reading a pipe would wait for ever, and a device may never end."""
    path = bundle / "manifest.json"
    path.unlink()
    os.mkfifo(path)
    assert refusal(bundle) == f"cannot read {path}: no regular file there"
    path.unlink()
    path.symlink_to("/dev/zero")
    assert refusal(bundle) == f"cannot read {path}: no regular file there"


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
def test_a_text_that_is_not_listed(bundle: Path, name: str) -> None:
    """What is there is read, so it must be what was exported."""

    def fix(document: dict[str, Any]) -> None:
        document["files"] = [r for r in document["files"] if r["path"] != name]

    edit_manifest(bundle, fix)
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    assert refusal(bundle) == (
        f"{bundle} cannot be used: {name}: required in the manifest's files, found none. {MEND}"
    )


@pytest.mark.parametrize("tokens", [1, 15, 17])
def test_tokens_of_a_frame_that_the_vision_geometry_does_not_give(
    bundle: Path, tokens: int
) -> None:
    edit_manifest(bundle, lambda document: document.update(tokens_per_frame=tokens))
    assert refusal(bundle) == (
        f"{bundle / 'manifest.json'} does not fit its schema: found tokens_per_frame: required 16 "
        f"of this vision geometry, found {tokens}. {REEXPORT}"
    )


@pytest.mark.parametrize("content", [b'{"schema_version": 1,', b"", b"\xff\xfe{}"])
def test_a_manifest_that_is_not_json(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    text = refusal(bundle)
    path = bundle / "manifest.json"
    assert text.startswith(f"{path} is damaged: required JSON in UTF-8, found ")
    assert text.endswith(f". {REEXPORT}")


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"schema_version": 2}, "2"),
        ({"schema_version": "1"}, '"1"'),
        ({"schema_version": True}, "true"),
        ({}, "null"),
        ([], "null"),
    ],
)
def test_a_manifest_of_another_schema(bundle: Path, document: object, found: str) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(document))
    assert refusal(bundle) == (
        f"{path} has another schema: required schema_version 1, found {found}. {REEXPORT}"
    )


def misfit(document: dict[str, Any]) -> None:
    document["colour"] = "blue"
    del document["model_id"]
    document["chunk_frames"] = "16"


def test_fields_of_a_manifest_that_do_not_fit(bundle: Path) -> None:
    edit_manifest(bundle, misfit)
    text = refusal(bundle)
    assert text.startswith(f"{bundle / 'manifest.json'} does not fit its schema: found ")
    assert "model_id: Field required" in text
    assert "chunk_frames: Input should be a valid integer" in text
    assert "colour: Extra inputs are not permitted" in text
    assert text.endswith(f". {REEXPORT}")


def test_a_tensor_of_another_shape_in_the_manifest(bundle: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["graphs"]["score"]["inputs"][1]["axes"][1] = 3

    edit_manifest(bundle, edit)
    assert refusal(bundle) == (
        f"{bundle} cannot be used: score: required keys float32 [S, 2, 16], found keys float32 "
        f"[S, 3, 16]. {MEND}"
    )


def test_a_tensor_too_few_and_one_too_many(bundle: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["graphs"]["compact"]["inputs"][2]["name"] = "kept"

    edit_manifest(bundle, edit)
    text = refusal(bundle)
    assert "compact: required keep int64 [K], found no keep; " in text
    assert "compact: required no such tensor, found kept int64 [K]. " in text


def test_graphs_that_must_be_there(bundle: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        del document["graphs"]["score"], document["graphs"]["compact"]
        document["vision"] = None

    edit_manifest(bundle, edit)
    assert refusal(bundle) == (
        f"{bundle} cannot be used: score: required in the manifest's graphs, found none; "
        "compact: required in the manifest's graphs, found none; "
        f"vision: required a vision geometry in the manifest, found none. {MEND}"
    )


def test_several_faults_are_all_listed(bundle: Path) -> None:
    score_bytes = (bundle / "score.onnx").stat().st_size
    (bundle / "score.onnx").unlink()
    (bundle / "vision.onnx").write_bytes(b"")
    content = bytearray((bundle / "tokenizer.json").read_bytes())
    content[40] ^= 1
    (bundle / "tokenizer.json").write_bytes(content)

    def edit(document: dict[str, Any]) -> None:
        document["files"] = [r for r in document["files"] if r["path"] != "compact.onnx"]
        document["decoder"]["kv_heads"] = 1

    edit_manifest(bundle, edit)
    text = refusal(bundle)
    for fault in (
        f"score.onnx: required {score_bytes} bytes, found no file",
        "vision.onnx: required 400607 bytes, found 0",
        "tokenizer.json: required sha256 ",
        "compact.onnx: required in the manifest's files, found none",
        "decoder: required past_key_values.9.value float32 [S9, 1, 16], "
        "found past_key_values.9.value float32 [S9, 2, 16]",
    ):
        assert fault in text


@pytest.mark.parametrize("outside", ["../secret", "/etc/hostname", "a/../../secret"])
def test_a_path_that_leaves_the_bundle(bundle: Path, outside: str) -> None:
    (bundle.parent / "secret").write_bytes(b"")

    def edit(document: dict[str, Any]) -> None:
        document["files"].append({"path": outside, "bytes": 0, "sha256": ""})

    edit_manifest(bundle, edit)
    assert f"{outside}: required a path inside the bundle" in refusal(bundle)


def safetensors(name: str, dtype: str, shape: list[int], content: bytes) -> bytes:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(content)]}
    header = json.dumps({name: entry}).encode()
    return len(header).to_bytes(8, "little") + header + content


TABLE = np.zeros((512, 64), np.float32).tobytes()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (safetensors("embeddings", "F32", [511, 64], TABLE[:-256]), "float32 [511, 64]"),
        (safetensors("embeddings", "F16", [512, 64], TABLE), "float16 [512, 64]"),
        (safetensors("embeddings", "BF16", [512, 64], TABLE), "bfloat16 [512, 64]"),
        (safetensors("embeddings", "F8_E5M2", [512, 64], TABLE), "F8_E5M2 [512, 64]"),
    ],
)
def test_embeddings_of_another_shape(bundle: Path, content: bytes, found: str) -> None:
    replace_file(bundle, "embeddings.safetensors", content)
    opened = Bundle.open(bundle)
    with pytest.raises(BundleError) as caught:
        opened.embeddings()
    assert str(caught.value) == (
        f"{bundle / 'embeddings.safetensors'} does not fit the manifest: required float32 "
        f"[512, 64], found {found}. {MEND}"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 4,
        b"not a safetensors file at all",
        safetensors("others", "F32", [512, 64], TABLE),
        (2).to_bytes(8, "little") + b"[]",
        (18).to_bytes(8, "little") + b'{"embeddings": [] ',
        (19).to_bytes(8, "little") + b'{"embeddings": [] }',
        (19).to_bytes(8, "little") + b'{"embeddings": {} }',
        safetensors("embeddings", "F32", [512, 64], TABLE[:-4]),
        safetensors("embeddings", "F32", [512, 64], TABLE).replace(b": [0, ", b": [[], "),
    ],
    ids=map(str, range(10)),
)
def test_embeddings_that_are_damaged(bundle: Path, content: bytes) -> None:
    replace_file(bundle, "embeddings.safetensors", content)
    opened = Bundle.open(bundle)
    with pytest.raises(BundleError) as caught:
        opened.embeddings()
    assert str(bundle / "embeddings.safetensors") in str(caught.value)
    assert str(caught.value).endswith(MEND)


def test_a_graph_that_is_not_onnx(bundle: Path) -> None:
    replace_file(bundle, "score.onnx", b"not a graph")
    opened = Bundle.open(bundle)
    with pytest.raises(EngineError) as caught:
        opened.engine("score")
    assert "cannot load" in str(caught.value)
    assert str(bundle / "score.onnx") in str(caught.value)


def test_another_graph_under_the_name(bundle: Path) -> None:
    replace_file(bundle, "score.onnx", (bundle / "compact.onnx").read_bytes())
    opened = Bundle.open(bundle)
    with pytest.raises(BundleError) as caught:
        opened.engine("score")
    text = str(caught.value)
    assert text.startswith(f"{bundle / 'score.onnx'} does not fit the contract: ")
    assert "required scores float32 [S], found no scores" in text
    assert "required no such tensor, found fold int64 [R]" in text
    assert "keys" not in {part.split()[1] for part in text.split("; ")}
    assert text.endswith(f". {REEXPORT}")


def test_a_graph_that_the_bundle_does_not_have(bundle: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        del document["graphs"]["embedding_probe"]

    edit_manifest(bundle, edit)
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle).engine("embedding_probe")
    assert str(caught.value) == (
        f"{bundle} has no embedding_probe graph: found compact, decoder, score, vision. "
        f"{REEXPORT} --embedding-probe"
    )


def test_embeddings_cut_short_while_they_are_in_use(bundle: Path) -> None:
    """As when the file is copied over: an error with a name, not a bus error."""
    path = bundle / "embeddings.safetensors"
    embeddings = Bundle.open(bundle).embeddings()
    before = embeddings.lookup([510, 3, 511])
    os.truncate(path, path.stat().st_size - 1)
    np.testing.assert_array_equal(embeddings.lookup([510, 3]), before[:2])
    with pytest.raises(BundleError) as caught:
        embeddings.lookup([3, 511])
    assert str(caught.value) == (
        f"{path} was cut short while it was in use: required 256 bytes of token 511, "
        f"found 255 bytes. {MEND}"
    )
