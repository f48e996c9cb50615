"""Views of memory: bounds, addresses, alignment."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_edge.engines import CpuDevice, View
from hermes_edge.engines.views import Array, host_array, host_view, row_slice
from hermes_edge.spec import ADDRESS_ALIGNMENT_BYTES


def test_memory_is_zeroed_and_aligned() -> None:
    assert ADDRESS_ALIGNMENT_BYTES == 256
    device = CpuDevice()
    for rows in (1, 3, 1000):
        view = device.allocate((rows, 5), "float32")
        assert view.address % 256 == 0
        assert view.nbytes == rows * 20
        assert not host_array(view).any()


def test_rows_share_the_memory() -> None:
    view = CpuDevice().allocate((6, 2, 4), "float32")
    part = view.rows(2, 5)
    assert (part.shape, part.row_bytes) == ((3, 2, 4), 32)
    assert part.address == view.address + 2 * 32
    host_array(part)[...] = 1
    np.testing.assert_array_equal(host_array(view)[:, 0, 0], [0, 0, 1, 1, 1, 0])
    assert view.rows(6, 6).shape == (0, 2, 4)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 7), (7, 7)])
def test_rows_outside_the_memory(start: int, stop: int) -> None:
    view = CpuDevice().allocate((6, 2), "int64")
    with pytest.raises(IndexError) as caught:
        view.rows(start, stop)
    assert str(caught.value) == f"rows {start}:{stop} of a view with 6 rows"


def test_reshape_keeps_the_elements() -> None:
    view = CpuDevice().allocate((6, 2), "int64")
    flat = view.reshape(3, 4)
    assert (flat.address, flat.shape, flat.nbytes) == (view.address, (3, 4), view.nbytes)
    with pytest.raises(ValueError) as caught:
        view.reshape(3, 5)
    assert str(caught.value) == "cannot reshape (6, 2) to (3, 5)"


@pytest.mark.parametrize(
    "source",
    [np.ones((1, 3), np.float32), np.ones((2, 3), np.float64), np.ones(3, np.float32)],
    ids=["rows", "dtype", "axes"],
)
def test_an_upload_that_would_be_broadcast_or_cast(source: Array) -> None:
    device = CpuDevice()
    view = device.allocate((2, 3), "float32")
    with pytest.raises(ValueError) as caught:
        device.upload(source, view)
    assert str(caught.value) == f"upload of {source.dtype} {source.shape} to float32 (2, 3)"
    assert not host_array(view).any()


def test_upload_and_download() -> None:
    device = CpuDevice()
    view = device.allocate((2, 3), "float16")
    source = np.arange(6, dtype=np.float16).reshape(2, 3)
    device.upload(source, view)
    np.testing.assert_array_equal(device.download(view), source)


def test_a_copy_on_the_device() -> None:
    device = CpuDevice()
    source, target = (device.allocate((3, 2), "float32") for _ in range(2))
    device.upload(np.arange(6, dtype=np.float32).reshape(3, 2), source)
    device.copy(source.rows(1, 3), target.rows(0, 2))
    np.testing.assert_array_equal(host_array(target), [[2, 3], [4, 5], [0, 0]])
    with pytest.raises(ValueError, match=r"^copy of float32 \(3, 2\) to float32 \(2, 2\)$"):
        device.copy(source, target.rows(0, 2))


def test_rows_are_cut_on_either_side() -> None:
    array = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(row_slice(array, 1, 3), [[2, 3], [4, 5]])
    cut = row_slice(host_view(array), 1, 3)
    assert isinstance(cut, View)
    assert len(cut) == 2 and cut.address == array.ctypes.data + 16


def test_host_views_are_the_array() -> None:
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    view = host_view(array)
    assert (view.address, view.shape, view.dtype) == (array.ctypes.data, (2, 3), "int64")
    host_array(view)[0, 0] = 9
    assert array[0, 0] == 9
    with pytest.raises(ValueError) as caught:
        host_view(array.T)
    assert str(caught.value) == "a view needs a C-contiguous array"


def test_memory_of_another_device_has_no_array() -> None:
    with pytest.raises(TypeError) as caught:
        host_array(View(256, (2,), "float32", "cuda:0", object()))
    assert str(caught.value) == "a view on cuda:0 has no host memory"
