"""The images of a source, before they are split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from searchae.errors import DataError

Images = npt.NDArray[Any]
"""uint8, or uint16 where 16 bits are kept, of shape (N, C, H, W), with C from 1 to
``MOST_CHANNELS``. 0 is black, the type's highest value white."""

MOST_CHANNELS = 4
"""Of images: 1 is grey, 3 RGB; 2 and 4 are these with transparency, or any other channels."""


@dataclass(frozen=True, eq=False)
class RawImages:
    """A source's images, checked.

    Attributes:
        train: Training images, with N at least 1.
        test: Test images of the same type, C, H and W; None if the source has no test split.
        doubts: Why the files can be read in another way too, each with what to write into the
            study file to say which is meant. ``load_splits`` refuses them.

    Raises:
        DataError: The arrays have another type or shape, or differ in C, H or W.
    """

    train: Images
    test: Images | None = None
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, images in (("train", self.train), ("test", self.test)):
            if images is not None:
                _check(images, split)
        if self.test is not None and self.test.shape[1:] != self.train.shape[1:]:
            raise DataError(
                f"train images are {_size(self.train)}, but test images are {_size(self.test)} "
                "(channels x height x width): all images of a data set must have one size"
            )


def level_type(bits: Literal[8, 16]) -> np.dtype[Any]:
    """Returns the type of images with so many bits."""
    return np.dtype(np.uint8 if bits == 8 else np.uint16)


def levels_of(images: Images) -> int:
    """Returns the level of white: 255 or 65535."""
    return int(np.iinfo(images.dtype).max)


def as_rgb(image: Images) -> npt.NDArray[np.uint8]:
    """Returns an image as people can look at it.

    Args:
        image: uint8 or uint16 (C, H, W).

    Returns:
        uint8 (H, W, 3): the channel of a grey image, or the first one of two, three times; of more
        than three channels the first three.
    """
    if image.dtype != np.uint8:
        image = np.rint(image / (levels_of(image) / 255)).astype(np.uint8)
    shown = image[:3] if len(image) >= 3 else image[:1]
    height, width = image.shape[1:]
    return np.ascontiguousarray(np.broadcast_to(shown.transpose(1, 2, 0), (height, width, 3)))


def _check(images: Images, split: str) -> None:
    if (
        images.dtype not in (np.uint8, np.uint16)
        or images.ndim != 4
        or not 1 <= images.shape[1] <= MOST_CHANNELS
    ):
        raise DataError(
            f"{split} images are {images.dtype} of shape {images.shape}, "
            f"not uint8 or uint16 of shape (N, 1 to {MOST_CHANNELS}, H, W)"
        )
    if images.size == 0:
        raise DataError(f"there is no {split} image: the shape is {images.shape}")


def _size(images: Images) -> str:
    return " x ".join(str(n) for n in images.shape[1:])
