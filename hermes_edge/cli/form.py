"""The options that say how an export stores numbers."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from hermes_edge.errors import SettingsError
from hermes_edge.spec import Precision, Quantization

_BLOCK = 32


class DType(str, Enum):
    """Precision of the weights; the integers are for the decoder's matrices."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"


class Compute(str, Enum):
    """Precision of everything that is not quantized."""

    FP32 = "fp32"
    FP16 = "fp16"


_DENSE: dict[DType, Precision] = {DType.FP32: "fp32", DType.FP16: "fp16", DType.BF16: "bf16"}

ComputeOption = Annotated[
    Compute | None, typer.Option(help="Of all else beside int8 or int4.", show_default="fp32")
]
BlockOption = Annotated[
    int | None,
    typer.Option(help="Inputs that share a scale in int4, 32 or 128.", show_default="32"),
]


def parse_form(
    dtype: DType, compute: Compute | None, block: int | None
) -> tuple[Precision, Quantization | None]:
    """What the options say together.

    Raises:
        SettingsError: an option that means nothing beside ``dtype``.
    """
    dense = _DENSE.get(dtype)
    if dense is not None:
        if compute is not None:
            raise SettingsError(
                "--compute says nothing here",
                required="--dtype int8 or int4 beside it",
                found=f"--dtype {dtype.value}",
            )
        precision = dense
    else:
        precision = "fp16" if compute is Compute.FP16 else "fp32"
    if block is not None and dtype is not DType.INT4:
        raise SettingsError(
            "--block says nothing here",
            required="--dtype int4 beside it",
            found=f"--dtype {dtype.value}",
        )
    if dtype is DType.INT8:
        return precision, Quantization(8, None)
    if dtype is DType.INT4:
        return precision, Quantization(4, _BLOCK if block is None else block)
    return precision, None
