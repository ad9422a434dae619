"""Augmentation: training images are moved, mirrored, and made brighter or darker, on the device."""

from __future__ import annotations

import torch
from torch import Tensor


def moved(
    images: Tensor, shifts: Tensor | None, flips: Tensor | None, *, channels_last: bool
) -> Tensor:
    """Mirrors images from left to right, and then moves them; edges are repeated.

    Pixels are picked by their indices, so that no value changes and nothing waits for the device.

    Args:
        images: Of any type, (B, H, W, C) if ``channels_last``, else (B, C, H, W).
        shifts: How far each image moves down and to the right in pixels, int64 (B, 2); None for
            none.
        flips: Whether each image is mirrored, bool (B,); None for none.
        channels_last: See ``images``.

    Returns:
        The same type and shape.
    """
    if images.dtype == torch.uint16:  # which torch cannot gather
        signed = moved(images.view(torch.int16), shifts, flips, channels_last=channels_last)
        return signed.view(torch.uint16)
    height, width = (1, 2) if channels_last else (2, 3)
    down, right = (None, None) if shifts is None else shifts.unbind(1)
    if down is not None:
        images = _taken(images, _sources(images.shape[height], down), dim=height)
    columns = torch.arange(images.shape[width], device=images.device).expand(len(images), -1)
    if right is not None:
        columns = _sources(images.shape[width], right)
    if flips is not None:
        columns = torch.where(flips[:, None], images.shape[width] - 1 - columns, columns)
    return _taken(images, columns, dim=width)


def brightened(images: Tensor, factors: Tensor) -> Tensor:
    """Multiplies images in [0, 1] by a factor each, and clamps the products to [0, 1].

    Args:
        images: Float (B, C, H, W).
        factors: Float (B,), not negative.
    """
    return (images * factors[:, None, None, None]).clamp_(max=1)


def _sources(size: int, shift: Tensor) -> Tensor:
    """Returns which row or column each row or column is taken from, int64 (B, size)."""
    places = torch.arange(size, device=shift.device)
    return (places - shift[:, None]).clamp_(0, size - 1)


def _taken(images: Tensor, sources: Tensor, *, dim: int) -> Tensor:
    shape = [len(images), 1, 1, 1]
    shape[dim] = sources.shape[1]
    return images.gather(dim, sources.view(shape).expand_as(images))
