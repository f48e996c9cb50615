"""The ONNX Runtime engine: devices, refusals, and that nothing is copied."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hermes_edge.contract import past_key, past_value, present_key, present_value
from hermes_edge.engines import Bundle, CpuDevice, View
from hermes_edge.engines.views import Array, host_array, host_view
from hermes_edge.errors import EngineError, SettingsError

STORED_ROWS, NEW_ROWS, CAPACITY_ROWS = 5, 3, 12


@pytest.fixture(scope="module")
def bundle(random_bundle: Path) -> Bundle:
    return Bundle.open(random_bundle)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:", "cpu:0", ""])
def test_unknown_devices(bundle: Bundle, device: str) -> None:
    with pytest.raises(SettingsError) as caught:
        bundle.engine("score", device)
    assert str(caught.value) == (f"unknown device: required cpu, cuda or cuda:N, found {device!r}")


def test_a_device_that_this_package_cannot_use(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    # As the CPU package says of itself, whichever is installed here.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError) as caught:
        bundle.engine("score", "cuda:0")
    assert str(caught.value) == (
        "this ONNX Runtime cannot use cuda: required CUDAExecutionProvider, found "
        "CPUExecutionProvider. Install it with: pip uninstall onnxruntime && pip install "
        "'hermes-edge[cuda]'"
    )


def compact_arrays(rows: int, keep: list[int]) -> tuple[dict[str, Array], dict[str, Array]]:
    random = np.random.default_rng(3)
    none = np.empty(0, dtype=np.int64)
    inputs: dict[str, Array] = {
        "keys": random.standard_normal((rows, 2, 16), dtype=np.float32),
        "values": random.standard_normal((rows, 2, 16), dtype=np.float32),
        "keep": np.array(keep, dtype=np.int64),
        "keep_delta": np.zeros(len(keep), dtype=np.int64),
        "fold": none,
        "fold_delta": none,
        "fold_weight": np.empty(0, dtype=np.float32),
    }
    shape = (len(keep) + 1, 2, 16)
    return inputs, {"new_keys": np.ones(shape, "f4"), "new_values": np.ones(shape, "f4")}


def views(arrays: dict[str, Array]) -> dict[str, View]:
    return {name: host_view(array) for name, array in arrays.items()}


def test_a_call_writes_where_it_is_told(bundle: Bundle) -> None:
    engine = bundle.engine("compact", threads=1)
    assert engine.graph == bundle.graph("compact")
    inputs, outputs = compact_arrays(6, [0, 2, 5])
    engine.run(views(inputs), views(outputs))
    np.testing.assert_array_equal(outputs["new_values"][:3], inputs["values"][[0, 2, 5]])
    np.testing.assert_array_equal(outputs["new_values"][3], 0)
    np.testing.assert_allclose(outputs["new_keys"][:3], inputs["keys"][[0, 2, 5]], atol=1e-6)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_tensor_that_the_graph_does_not_have(bundle: Bundle, side: str) -> None:
    inputs, outputs = compact_arrays(6, [0, 2, 5])
    (inputs if side == "inputs" else outputs)["extra"] = np.zeros(1, dtype=np.float32)
    with pytest.raises(EngineError) as caught:
        bundle.engine("compact", threads=1).run(views(inputs), views(outputs))
    assert str(caught.value) == "compact has no tensor 'extra'"


def test_a_call_that_fails_says_why(bundle: Bundle) -> None:
    inputs, outputs = compact_arrays(6, [0, 2, 99])
    with pytest.raises(EngineError) as caught:
        bundle.engine("compact", threads=1).run(views(inputs), views(outputs))
    assert str(caught.value).startswith("a call of compact failed: found ")
    assert "99" in str(caught.value)


def test_new_rows_are_appended_in_place(bundle: Bundle) -> None:
    """Present bound behind past, in one slab: its rows are written, and nothing else is."""
    decoder = bundle.manifest.decoder
    random, device = np.random.default_rng(8), CpuDevice()
    names = [n for i in range(decoder.layers) for n in (past_key(i), past_value(i))]
    slabs = {name: device.allocate((CAPACITY_ROWS, 2, 16), "float32") for name in names}
    for slab in slabs.values():
        host_array(slab)[...] = random.standard_normal(slab.shape)
    before = {name: host_array(slab).copy() for name, slab in slabs.items()}

    first = np.arange(STORED_ROWS, STORED_ROWS + NEW_ROWS, dtype=np.int64)
    embeds = random.standard_normal((NEW_ROWS, decoder.embedding_width), dtype=np.float32)
    fixed: dict[str, Array] = {
        "inputs_embeds": embeds,
        "position_ids": np.tile(first, (decoder.layers, 1)),
        "segment_ids": np.zeros(NEW_ROWS, dtype=np.int64),
        "logit_rows": np.array([NEW_ROWS - 1], dtype=np.int64),
        "probe_rows": np.empty(0, dtype=np.int64),
        "past_visible": np.array([True]),
    }
    queries = (decoder.layers, 0, decoder.query_heads, decoder.head_size)

    def run(present: dict[str, View], past: dict[str, View]) -> Array:
        logits = np.zeros((1, decoder.vocabulary), dtype=np.float32)
        results = views({"logits": logits, "probe_queries": np.empty(queries, dtype=np.float32)})
        bundle.engine("decoder", threads=1).run({**views(fixed), **past}, {**results, **present})
        return logits

    past = {name: slab.rows(0, STORED_ROWS) for name, slab in slabs.items()}
    layers = range(decoder.layers)
    pairs = [(past_key(i), present_key(i)) for i in layers]
    pairs += [(past_value(i), present_value(i)) for i in layers]
    stop = STORED_ROWS + NEW_ROWS
    in_place = run({new: slabs[old].rows(STORED_ROWS, stop) for old, new in pairs}, past)
    apart = {new: device.allocate((NEW_ROWS, 2, 16), "float32") for _, new in pairs}
    assert in_place.any()
    np.testing.assert_array_equal(in_place, run(apart, past))
    for old, new in pairs:
        after = host_array(slabs[old])
        np.testing.assert_array_equal(after[:STORED_ROWS], before[old][:STORED_ROWS])
        np.testing.assert_array_equal(after[stop:], before[old][stop:])
        np.testing.assert_array_equal(after[STORED_ROWS:stop], host_array(apart[new]))
        assert (after[STORED_ROWS:stop] != before[old][STORED_ROWS:stop]).all()


def test_a_process_may_have_registered_an_arena_of_its_own(random_bundle: Path) -> None:
    code = """
import sys
import onnxruntime as ort
kind, memory = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", kind, 0, memory), None)
from hermes_edge.engines import Bundle
print(Bundle.open(sys.argv[1]).engine("score").graph.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(random_bundle)], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("score\n", "")
