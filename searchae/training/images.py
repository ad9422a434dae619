"""Training images on the device, batches of them, and noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from searchae.data import gather, is_large, parts, release
from searchae.errors import DataError
from searchae.training.augmentation import moved


@dataclass(frozen=True)
class ResidentImages:
    """All training images, on the device that trains.

    Attributes:
        rows: uint8 or uint16, (N, H, W, C) if ``is_stored_last``, else (N, C, H, W). Contiguous, so
            that a batch is gathered in whole rows (18 times as fast as indexing a strided tensor).
        channels_last: Whether batches have that memory format.
        is_stored_last: Whether the channels are last in ``rows``.
    """

    rows: Tensor
    channels_last: bool
    is_stored_last: bool

    @classmethod
    def on(cls, device: torch.device, images: Tensor, *, channels_last: bool) -> ResidentImages:
        """Moves images to a device.

        Args:
            device: The device to train on.
            images: uint8 or uint16 (N, C, H, W).
            channels_last: Whether batches shall have that memory format.
        """
        # Large images that are mapped stay as they are: each batch is converted instead.
        last = channels_last
        if device.type == "cpu" and is_large(images):
            last = images.permute(0, 2, 3, 1).is_contiguous()
        rows = (images.permute(0, 2, 3, 1) if last else images).to(device).contiguous()
        release(images)
        return cls(rows, channels_last, last)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(
        self, indices: Tensor, *, shifts: Tensor | None = None, flips: Tensor | None = None
    ) -> Tensor:
        """Returns images as float32 (B, C, H, W) in [0, 1].

        Args:
            indices: Which, int64 (B,).
            shifts: How they are moved, see ``moved``.
            flips: Which of them are mirrored, see ``moved``.

        Raises:
            DataError: See ``gather``.
        """
        rows = gather(self.rows, indices)
        if shifts is not None or flips is not None:
            rows = moved(rows, shifts, flips, channels_last=self.is_stored_last)
        images = to_unit_float(rows.permute(0, 3, 1, 2) if self.is_stored_last else rows)
        if self.is_stored_last == self.channels_last:
            return images
        last = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=last)


def to_unit_float(images: Tensor) -> Tensor:
    """Converts uint8 or uint16 images of any shape to float32 in [0, 1]; strides are kept."""
    return images.to(torch.float32).div_(torch.iinfo(images.dtype).max)


def mean_image(images: Tensor) -> Tensor:
    """Returns the mean of images, float32 (C, H, W) in [0, 1].

    Args:
        images: uint8 or uint16 (N, C, H, W).
    """
    # Summed as integers, which is exact, and part by part, since torch converts what it sums.
    total = torch.zeros(images.shape[1:], dtype=torch.int64, device=images.device)
    for part in parts(images):
        total += part.sum(0, dtype=torch.int64)
    return total.div(len(images)).div_(torch.iinfo(images.dtype).max)


def noisy(images: Tensor, noise: Tensor) -> Tensor:
    """Adds noise to images in [0, 1] and clamps the sum to [-1, 1].

    The lower bound is below 0, so that noise on dark pixels is not one-sided.
    """
    return (images + noise).clamp_(-1, 1)


def gaussian(shape: tuple[int, ...], std: float, generator: torch.Generator) -> Tensor:
    """Returns Gaussian noise with mean 0, float32, on the CPU.

    Args:
        shape: Of the result.
        std: Standard deviation.
        generator: A generator on the CPU.
    """
    return torch.randn(shape, generator=generator).mul_(std)


def check_images(images: Tensor, *, split: str) -> None:
    """Checks that images are uint8 or uint16 (N, C, H, W) with at least one image.

    Raises:
        DataError: They are not; the message names the split.
    """
    if images.dtype not in (torch.uint8, torch.uint16) or images.ndim != 4 or len(images) == 0:
        raise DataError(
            f"{split} images: must be uint8 or uint16 (N, C, H, W) with N above 0, not "
            f"{images.dtype} {tuple(images.shape)}"
        )
