"""What a GPU reaches, measured with torch: the CUDA runtime alone has no matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable

from hermes_edge.bench.figures import RateFigures
from hermes_edge.errors import DependencyError
from hermes_edge.spec import PRECISION_DTYPE, Precision

_MATRIX_SIDE = 8192
_READ_BYTES = 1 << 30
_REPEATS = 10


def measure_gpu_rates(device: str, precision: Precision) -> RateFigures:
    """Best of ten: a product of square matrices in ``precision``, and a sum over 1 GiB.

    Raises:
        DependencyError: torch is not installed, or has no CUDA.
    """
    try:
        import torch
    except ImportError as error:
        raise _missing(str(error)) from None
    if not torch.cuda.is_available():
        raise _missing(f"torch {torch.__version__} without a usable GPU")
    square = torch.randn(
        (_MATRIX_SIDE, _MATRIX_SIDE),
        dtype=getattr(torch, PRECISION_DTYPE[precision]),
        device=device,
    )
    # Read once and written hardly at all; larger than any cache.
    long = torch.ones(_READ_BYTES // 4, dtype=torch.float32, device=device)

    def best_s(work: Callable[[], object]) -> float:
        times = []
        # The first one chooses a kernel.
        for _ in range(1 + _REPEATS):
            torch.cuda.synchronize(device)
            began = time.perf_counter()
            work()
            torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
        return min(times[1:])

    product_s = best_s(lambda: square @ square)
    read_s = best_s(long.sum)
    return RateFigures(
        sgemm_gflop_per_s=2 * _MATRIX_SIDE**3 / product_s / 1e9,
        read_gbyte_per_s=_READ_BYTES / read_s / 1e9,
    )


def _missing(found: str) -> DependencyError:
    return DependencyError(
        "a GPU's floors are measured with torch",
        required="torch with CUDA",
        found=found,
        fix="Install torch for this GPU",
    )
