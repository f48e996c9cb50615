"""Device memory: what is allocated, copied, counted and given back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hermes_edge.engines import Bundle
from hermes_edge.engines.backends import OrtBackend
from hermes_edge.engines.cuda import CudaDevice, check_precision
from hermes_edge.engines.trt.build import build_bundle
from hermes_edge.engines.trt.builder import BuildOptions
from hermes_edge.engines.trt.profiles import Limits
from hermes_edge.engines.trt.record import Place
from hermes_edge.errors import BudgetError, EngineError
from hermes_edge.shipped import TINY_BUNDLE


def test_memory_is_zeroed_aligned_and_counted(cuda: Any) -> None:
    device = CudaDevice(0, cuda)
    view = device.allocate((5, 3), "float16")
    assert view.address % 256 == 0
    assert (view.device, view.nbytes, device.allocated_bytes) == ("cuda:0", 30, 30)
    assert not device.download(view).any()
    assert (device.gpu, device.compute_capability) == ("Orin", "8.7")


def test_memory_is_given_back_with_the_last_view(cuda: Any) -> None:
    device = CudaDevice(0, cuda)
    view = device.allocate((1000,), "uint8")
    part = view.rows(10, 20)
    del view
    gc.collect()
    assert (device.allocated_bytes, cuda.used_bytes) == (1000, 1000)
    del part
    gc.collect()
    assert (device.allocated_bytes, cuda.used_bytes) == (0, 0)


@pytest.mark.parametrize("rows", [1, 100, 2_500_000], ids=["small", "one piece", "many pieces"])
def test_what_goes_in_comes_out(cuda: Any, rows: int) -> None:
    device = CudaDevice(0, cuda)
    view = device.allocate((rows + 1, 2), "float32")
    values = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    device.upload(values, view.rows(1, rows + 1))
    np.testing.assert_array_equal(device.download(view.rows(1, rows + 1)), values)
    assert not device.download(view.rows(0, 1)).any()


def test_bfloat16_is_uploaded_and_downloaded(cuda: Any) -> None:
    device = CudaDevice(0, cuda)
    view = device.allocate((3, 2), "bfloat16")
    assert (view.nbytes, view.row_bytes) == (12, 4)
    values = np.array([[1, -2], [0.5, 3], [1 / 3, 1e38]]).astype(ml_dtypes.bfloat16)
    device.upload(values, view)
    found = device.download(view.rows(1, 3))
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, values[1:])
    with pytest.raises(ValueError, match=r"^upload of float32 \(3, 2\) to bfloat16 \(3, 2\)$"):
        device.upload(values.astype(np.float32), view)


@pytest.mark.parametrize("capability", ["5.3", "7.2", "7.5"])
def test_bf16_on_a_gpu_without_it(cuda: Any, capability: str) -> None:
    bundle = Bundle.open(TINY_BUNDLE, check_hashes=False)
    bf16 = Bundle(bundle.path, bundle.manifest.model_copy(update={"precision": "bf16"}))
    device = CudaDevice(0, cuda)
    device.gpu, device.compute_capability = "Old", capability
    place = Place(tensorrt="10.3.0", compute_capability=capability, gpu="Old", system="linux-x")
    limits, options = Limits(1, 1, 1, 1), BuildOptions()
    nothing: Any = None  # neither TensorRT nor a listener is asked
    for refused in (
        lambda: OrtBackend(device, 0).engine(bf16, "decoder"),
        lambda: build_bundle(nothing, bf16, place, limits, options, nothing),
    ):
        with pytest.raises(EngineError) as caught:
            refused()
        assert str(caught.value) == (
            "Old cannot compute in bf16: required compute capability 8.0 or newer, "
            f"found {capability}. Export with --dtype fp16"
        )
    check_precision("fp16", "Old", capability)


@pytest.mark.parametrize("capability", ["8.0", "8.7", "10.0", "12.1"])
def test_bf16_on_a_gpu_that_has_it(capability: str) -> None:
    check_precision("bf16", "New", capability)


def test_nothing_is_allocated_by_copies(cuda: Any) -> None:
    device = CudaDevice(0, cuda)
    view = device.allocate((64,), "int64")
    cuda.calls.clear()
    for _ in range(5):
        device.upload(np.ones(64, np.int64), view)
        device.download(view)
    assert not {"cudaMalloc", "cudaHostAlloc"} & set(cuda.calls)
    # The host waits where it reads, and nowhere else.
    assert cuda.calls.count("cudaStreamSynchronize") == 5


def test_threads_do_not_cross(cuda: Any) -> None:
    """Each writes and reads its own rows, through pinned memory that all share."""
    device = CudaDevice(0, cuda)

    def carry(number: int) -> bool:
        view = device.allocate((200_000,), "int64")
        values = np.full(200_000, number)
        for _ in range(10):
            device.upload(values, view)
            if not np.array_equal(device.download(view), values):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(carry, range(8)))


def test_a_copy_stays_on_the_device(cuda: Any) -> None:
    device = CudaDevice(0, cuda)
    source, target = (device.allocate((4, 3), "float32") for _ in range(2))
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    device.upload(values, source)
    cuda.calls.clear()
    device.copy(source.rows(1, 4), target.rows(0, 3))
    assert cuda.calls == ["cudaMemcpyAsync"]
    np.testing.assert_array_equal(device.download(target), [*values[1:], np.zeros(3)])
    with pytest.raises(ValueError, match=r"^copy of float32 \(4, 3\) to float32 \(3, 3\)$"):
        device.copy(source, target.rows(0, 3))


def test_an_upload_of_another_shape_is_refused(cuda: Any) -> None:
    device = CudaDevice(0, cuda)
    view = device.allocate((4,), "float32")
    with pytest.raises(ValueError, match=r"^upload of float64 \(4,\) to float32 \(4,\)$"):
        device.upload(np.zeros(4), view)


def test_out_of_memory_says_what_was_asked_and_what_is_free(cuda: Any) -> None:
    cuda.total_bytes = 1000
    device = CudaDevice(0, cuda)
    kept = device.allocate((600,), "uint8")
    with pytest.raises(BudgetError) as caught:
        device.allocate((100, 10), "float32")
    assert str(caught.value) == (
        "cuda:0 is out of memory: required 4,000 bytes more, found 400 free of 1,000. "
        "Lower the budget, chunk_frames or the number of streams (hermes-edge plan adds them up), "
        "or end other programs"
    )
    assert kept.nbytes == 600


def test_a_gpu_that_is_not_there(cuda: Any) -> None:
    with pytest.raises(EngineError) as caught:
        CudaDevice(3, cuda)
    assert str(caught.value) == (
        "there is no GPU 3: required 4 or more, found 1. "
        "See what is there with: nvidia-smi, or hermes-edge doctor"
    )


def test_the_real_bindings_without_a_gpu_give_a_clear_error() -> None:
    """In a process that is shown no GPU, whatever the machine has."""
    code = (
        "from hermes_edge.engines.cuda import CudaDevice\n"
        "from hermes_edge.errors import EngineError\n"
        "try:\n    CudaDevice(0)\nexcept EngineError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith(
        "there is no usable GPU: required an NVIDIA driver that is as new as CUDA's bindings, "
        "found cudaError"
    )
    assert done.stdout.endswith("See what is wrong with: nvidia-smi, or hermes-edge doctor\n")
