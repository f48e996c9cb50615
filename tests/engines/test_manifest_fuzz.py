"""A thousand manifests, each wrong in one way: every one is refused in words."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from hermes_edge.engines import Bundle
from hermes_edge.errors import BundleError

SEEDS = 1000

Place = tuple[Any, ...]


def places(node: Any, at: Place = ()) -> list[Place]:
    """Every value of the document, the outermost left out."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, value in items:
        found.append((*at, key))
        if isinstance(value, (dict, list)):
            found += places(value, (*at, key))
    return found


def value_at(document: Any, place: Place) -> Any:
    for key in place:
        document = document[key]
    return document


# Wrong wherever a value of this type is right; whole numbers are right for floating-point ones.
OTHER_TYPES: dict[type, list[Any]] = {
    bool: [{"a": 1}, [[]], "true", 1, None],
    int: [{"a": 1}, [[]], "3", 1.5, True, None],
    float: [{"a": 1}, [[]], "3", None],
    str: [{"a": 1}, [[]], 3, 1.5, True, None],
    list: [{"a": 1}, "3", 3, True, None],
    dict: [[[]], "3", 3, True, None],
    type(None): [{"a": 1}, [[]], 3, 1.5, True],
}
NUMBERS = (-1, -(1 << 40), 1 << 40, 1 << 70, 10**400, math.nan, math.inf, -1e300)
PATHS = (
    *("../decoder.onnx", "/etc/passwd", "./../../x", "a/../../x", "", ".", "..", "/", "/dev/zero"),
    *("decoder.onnx\0", "x" * 5000, "~/x", "//decoder.onnx", "decoder.onnx/x", "\ud800"),
    *("DECODER.onnx", "decoder.onnx/../../x", "\\..\\x"),
)


def test_places_are_found() -> None:
    assert places({"a": [1, {"b": 2}], "c": 3}) == [
        ("a",),
        ("a", 0),
        ("a", 1),
        ("a", 1, "b"),
        ("c",),
    ]


def mutated(seed: int, text: str) -> bytes:
    """The manifest with one thing in it wrong."""
    chance, document = random.Random(seed), json.loads(text)
    # What may be anything of its type, and says nothing of the model.
    free = {"model_id", "tools", "parity"}
    every = [place for place in places(document) if place[0] not in free]
    kind = chance.choice(["type", "number", "path", "gone", "more", "deep", "bytes"])
    if kind == "bytes":
        return broken_bytes(chance, text)
    if kind == "deep":
        place = chance.choice(every)
        depth = chance.choice([2_000, 200_000])
        put(document, place, "DEEP")
        opening, closing = chance.choice([("[", "]"), ('{"a":', "}")])
        deep = opening * depth + "0" + closing * depth
        return json.dumps(document).replace('"DEEP"', deep).encode()
    if kind == "gone":
        named = [p for p in every if isinstance(p[-1], str) and not optional(p)]
        place = chance.choice(named)
        del value_at(document, place[:-1])[place[-1]]
    elif kind == "more":
        inner = [p for p in [(), *every] if isinstance(value_at(document, p), dict)]
        value_at(document, chance.choice(inner))[chance.choice(["x", "layers ", "__class__"])] = 1
    elif kind == "path":
        paths = [p for p in every if p[-1] in ("path", "file")]
        put(document, chance.choice(paths), chance.choice(PATHS))
    elif kind == "number":
        numbers = [p for p in every if type(value_at(document, p)) in (int, float)]
        place = chance.choice(numbers)
        right = value_at(document, place)
        put(document, place, chance.choice([n for n in NUMBERS if n != right]))
    else:
        place = chance.choice(every)
        put(document, place, chance.choice(OTHER_TYPES[type(value_at(document, place))]))
    return json.dumps(document).encode()


def optional(place: Place) -> bool:
    return place[-1] in ("schema_version_", "quantization") or place == (
        "graphs",
        "embedding_probe",
    )


def put(document: Any, place: Place, value: Any) -> None:
    value_at(document, place[:-1])[place[-1]] = value


def broken_bytes(chance: random.Random, text: str) -> bytes:
    whole = text.encode()
    cut = chance.randrange(len(whole) - 2)
    return chance.choice(
        [
            whole[:cut],
            whole[:cut] + bytes([chance.randrange(128, 256)]) + whole[cut:],
            whole[:cut] + b"\0" + whole[cut:],
            text.encode("utf-16"),
            b"\xef\xbb\xbf" + whole,
            whole + whole,
            bytes(chance.randrange(256) for _ in range(200)),
            b"[" * 300_000,
            b"",
        ]
    )


@pytest.fixture(scope="module")
def bundle(random_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(random_bundle, tmp_path_factory.mktemp("fuzz") / "bundle")


def test_numbers_out_of_range_are_named(bundle: Path, random_bundle: Path) -> None:
    document = json.loads((random_bundle / "manifest.json").read_text())
    document["decoder"]["layers"] = 1 << 40
    document["vision"]["image_std"][1] = math.nan
    document["eos_token_ids"] = [2, 512]
    (bundle / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle)
    assert str(caught.value) == (
        f"{bundle / 'manifest.json'} does not fit its schema: found decoder.layers: required 1 to "
        "1024, found 1099511627776; vision.image_std.1: required 1e-30 to 1, found nan; "
        "eos_token_ids.1: required 0 to 511, found 512. Export again with: hermes-edge export "
        "CHECKPOINT -o BUNDLE"
    )


def test_a_file_that_cannot_be_read_is_named(bundle: Path, random_bundle: Path) -> None:
    document = json.loads((random_bundle / "manifest.json").read_text())
    document["files"][0]["path"] = "x" * 300
    (bundle / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle)
    fault = f"{'x' * 300}: required a file that can be read, found File name too long"
    assert fault in str(caught.value)


def test_every_manifest_is_refused_in_words(bundle: Path, random_bundle: Path) -> None:
    text = (random_bundle / "manifest.json").read_text()
    accepted = []
    for seed in range(SEEDS):
        content = mutated(seed, text)
        (bundle / "manifest.json").write_bytes(content)
        try:
            Bundle.open(bundle)
        except BundleError as error:
            assert str(bundle) in str(error), seed
            assert len(str(error)) < 20_000, seed
        else:
            accepted.append(seed)
    assert accepted == []
