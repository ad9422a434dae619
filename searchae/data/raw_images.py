"""The images of a source, before they are split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from searchae.errors import DataError

Images = npt.NDArray[np.uint8]
"""uint8 of shape (N, C, H, W), with C 1 (grey) or 3 (RGB)."""


@dataclass(frozen=True, eq=False)
class RawImages:
    """A source's images, checked.

    Attributes:
        train: Training images, uint8 (N, C, H, W) with N at least 1 and C 1 or 3.
        test: Test images with the same C, H and W; None if the source has no test split.
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


def _check(images: Images, split: str) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"{split} images are {images.dtype} of shape {images.shape}, "
            "not uint8 of shape (N, 1 or 3, H, W)"
        )
    if images.size == 0:
        raise DataError(f"there is no {split} image: the shape is {images.shape}")


def _size(images: Images) -> str:
    return " x ".join(str(n) for n in images.shape[1:])
