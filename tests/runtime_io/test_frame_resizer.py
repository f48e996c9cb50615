"""The resizer against Pillow and torch, which the checkpoint's own processors use."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from hermes_edge.errors import SourceError
from hermes_edge.runtime.resize import FrameResizer

SIDE = 384
SIZES = [
    (1080, 1920),
    (480, 640),
    (1200, 90),
    (90, 1200),
    (1000, 1001),
    (384, 384),
    (384, 500),
    (385, 383),
    (120, 160),
    (40, 700),
    (300, 1),
    (1, 300),
    (1, 1),
]


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Gradients, hard black and white edges and noise: filters overshoot at all of them."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1)
    image[(x // 7 + y // 5) % 3 == 0] = 0
    image[(x // 11 + y // 13) % 4 == 0] = 255
    noisy = random.random((height, width)) < 0.2
    image[noisy] = random.integers(0, 256, (int(noisy.sum()), 3))
    return image.astype(np.uint8)


def by_pillow(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.int64]:
    """Rows, then columns. In one call, Pillow 13 takes the columns of tall pictures first."""
    rows = Image.fromarray(image).resize((side, image.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(rows.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int64)


def by_torch(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """What torchvision's antialiased resize of a uint8 picture calls."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    resized = torch.nn.functional.interpolate(
        pixels, size=(SIDE, SIDE), mode="bicubic", antialias=True
    )
    return resized[0].permute(1, 2, 0).numpy().astype(np.int64)


def by_processor(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    processor: Any = LlavaOnevisionImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, do_rescale=False, do_normalize=False
    )
    # The first of the crops is the whole picture.
    pixels = processor(image, return_tensors="np")["pixel_values"][0][0]
    return np.asarray(pixels).transpose(1, 2, 0).astype(np.int64)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equals_pillow(height: int, width: int) -> None:
    image = picture(height, width)
    resized = FrameResizer(SIDE).resize(image)
    difference = np.abs(resized.astype(np.int64) - by_pillow(image, SIDE))
    assert resized.shape == (SIDE, SIDE, 3)
    assert resized.dtype == np.uint8
    # Pillow counts in fixed point: an exact half may fall to the other side.
    assert difference.max() <= 1
    assert difference.mean() < 0.001


@pytest.mark.parametrize(("height", "width"), [size for size in SIZES if size[0] <= size[1]])
def test_equals_pillow_in_one_call(height: int, width: int) -> None:
    image = picture(height, width, seed=2)
    pillow = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    difference = np.abs(FrameResizer(SIDE).resize(image) - pillow.astype(np.int64))
    assert difference.max() <= 1
    assert difference.mean() < 0.001


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equals_torch(height: int, width: int) -> None:
    image = picture(height, width, seed=3)
    difference = np.abs(FrameResizer(SIDE).resize(image) - by_torch(image))
    # torch counts in 16-bit fixed point.
    assert difference.max() <= 2
    assert difference.mean() < 0.02


@pytest.mark.parametrize(("height", "width"), [(480, 640), (90, 200)])
def test_equals_the_checkpoints_processor(height: int, width: int) -> None:
    image = picture(height, width, seed=1)
    difference = np.abs(FrameResizer(SIDE).resize(image) - by_processor(image))
    assert difference.max() <= 1
    assert difference.mean() < 0.001


@pytest.mark.parametrize("side", [1, 7, 32, 33, 100])
def test_equals_pillow_for_any_side(side: int) -> None:
    image = picture(150, 211)
    difference = np.abs(FrameResizer(side).resize(image) - by_pillow(image, side))
    assert difference.max() <= 1


def test_same_size_is_an_independent_copy() -> None:
    image = picture(64, 64)
    resized = FrameResizer(64).resize(image)
    np.testing.assert_array_equal(resized, image)
    assert not np.shares_memory(resized, image)


def test_any_memory_layout_gives_the_same() -> None:
    image = picture(200, 300)
    resizer = FrameResizer(64)
    swapped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    read_only = image.copy()
    read_only.setflags(write=False)
    for other in (swapped, np.asfortranarray(image), read_only):
        np.testing.assert_array_equal(resizer.resize(other), resizer.resize(image))


def test_one_colour_stays_that_colour() -> None:
    image = np.full((719, 1281, 3), (0, 128, 255), np.uint8)
    np.testing.assert_array_equal(
        FrameResizer(96).resize(image), np.broadcast_to(image[:1, :1], (96, 96, 3))
    )


@pytest.mark.parametrize(
    ("frame", "found", "fix"),
    [
        (np.zeros((4, 5, 3), np.float32), "float32 [4, 5, 3]", "Scale it to 0..255"),
        (np.zeros((4, 5), np.uint8), "uint8 [4, 5]", "Repeat the grey channel"),
        (np.zeros((4, 5, 1), np.uint8), "uint8 [4, 5, 1]", "Repeat the grey channel"),
        (np.zeros((4, 5, 4), np.uint8), "uint8 [4, 5, 4]", "Drop the alpha channel"),
        (np.zeros((0, 5, 3), np.uint8), "uint8 [0, 5, 3]", "Skip frames"),
        (np.zeros((2, 4, 5, 3), np.uint8), "uint8 [2, 4, 5, 3]", "one picture at a time"),
        (None, "NoneType", "numpy.asarray"),
    ],
)
def test_refuses_what_is_not_a_picture(frame: Any, found: str, fix: str) -> None:
    with pytest.raises(SourceError) as refused:
        FrameResizer(SIDE).resize(frame)
    text = str(refused.value)
    assert "a frame is not an RGB picture: required uint8 [height, width, 3]" in text
    assert f"found {found}. " in text
    assert fix in text
