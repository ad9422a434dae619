"""Training images on the device, batches of them, and noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from searchae.errors import DataError
from searchae.training.augmentation import moved


@dataclass(frozen=True)
class ResidentImages:
    """All training images, on the device that trains.

    Attributes:
        rows: uint8, (N, H, W, C) if ``channels_last``, else (N, C, H, W). Contiguous, so that a
            batch is gathered in whole rows (18 times as fast as indexing a strided tensor).
        channels_last: Whether batches have that memory format.
    """

    rows: Tensor
    channels_last: bool

    @classmethod
    def on(cls, device: torch.device, images: Tensor, *, channels_last: bool) -> ResidentImages:
        """Moves images to a device.

        Args:
            device: The device to train on.
            images: uint8 (N, C, H, W).
            channels_last: Whether batches shall have that memory format.
        """
        rows = images.permute(0, 2, 3, 1) if channels_last else images
        return cls(rows.to(device).contiguous(), channels_last)

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
        """
        rows = self.rows.index_select(0, indices)
        if shifts is not None or flips is not None:
            rows = moved(rows, shifts, flips, channels_last=self.channels_last)
        return to_unit_float(rows.permute(0, 3, 1, 2) if self.channels_last else rows)


def to_unit_float(images: Tensor) -> Tensor:
    """Converts uint8 images of any shape to float32 in [0, 1]; strides are kept."""
    return images.to(torch.float32).div_(255)


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
    """Checks that images are uint8 (N, C, H, W) with at least one image.

    Raises:
        DataError: They are not; the message names the split.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise DataError(
            f"{split} images: must be uint8 (N, C, H, W) with N above 0, not "
            f"{images.dtype} {tuple(images.shape)}"
        )
