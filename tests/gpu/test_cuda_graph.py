"""Capture and launch on a real GPU, with copies in place of an engine."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_edge.engines.cuda import CudaDevice, import_cuda


@pytest.mark.gpu
def test_copies_are_recorded_and_launched() -> None:
    cuda = import_cuda()
    device = CudaDevice(0, cuda)
    source, target = (device.allocate((4,), "int64") for _ in range(2))
    kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice

    def work(stream: int) -> None:
        (error,) = cuda.cudaMemcpyAsync(target.address, source.address, source.nbytes, kind, stream)
        assert error.name == "cudaSuccess"

    device.upload(np.full(4, 3), source)
    graph = device.capture(work)
    assert not device.download(target).any()
    for value in (3, 5):
        device.upload(np.full(4, value), source)
        graph.launch()
        assert device.download(target).tolist() == [value] * 4
