"""Checks of what a bundle is given: images, latents and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from searchae.bundle.config import CONFIG, WEIGHTS, BundleConfig
from searchae.errors import BundleError
from searchae.models import Autoencoder, own_name
from searchae.training import penalised_weights


def to_tensor(values: npt.NDArray[Any] | Tensor) -> Tensor:
    """Returns an array as a tensor that shares its memory where possible.

    Raises:
        BundleError: It is not an array or a tensor of numbers, or its type has no tensor
            equivalent.
    """
    if isinstance(values, Tensor):
        return values.detach()
    if (
        not isinstance(values, np.ndarray)
        or values.dtype.kind not in "uif"
        or values.dtype == "f16"
    ):
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise BundleError(f"expected an array or a tensor of numbers, not {kind}")
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    # Torch does not support negative strides, and warns about read-only arrays.
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))


def check_images(images: Tensor, config: BundleConfig) -> Tensor:
    """Returns images unchanged if the net accepts them.

    Args:
        images: (N, C, H, W), uint8 or float in [0, 1]; uint16 if the net's images keep 16 bits.
        config: Of the net.

    Raises:
        BundleError: They have another shape, type or range.
    """
    image_shape = config.image_shape
    if images.ndim != 4 or tuple(images.shape[1:]) != image_shape:
        shape = tuple(images.shape)
        raise BundleError(
            f"images have the shape {shape}, but this bundle's net takes "
            f"{_shape_text(image_shape)}{_shape_hint(shape, image_shape)}"
        )
    has_8_bits = config.data.value_bits == 8
    levels = (torch.uint8,) if has_8_bits else (torch.uint8, torch.uint16)
    if images.dtype in levels:
        return images
    if not images.is_floating_point():
        known = "uint8" if has_8_bits else "uint8, uint16 with 65535 for white"
        raise BundleError(f"images are {images.dtype}: give {known}, or float in [0, 1]")
    low, high = (float(v) for v in torch.aminmax(images)) if images.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise BundleError(
            f"images have values from {low:g} to {high:g}: floats must be in [0, 1]; divide "
            f"by {'255, or give uint8' if has_8_bits else '65535, or give uint16'}"
        )
    return images


def check_latents(latents: Tensor, latent_size: int) -> Tensor:
    """Returns latents unchanged if the net accepts them.

    Args:
        latents: Float (N, latent_size), finite.
        latent_size: The net's.

    Raises:
        BundleError: They have another shape or type, or contain NaN or infinity.
    """
    if latents.ndim != 2 or latents.shape[1] != latent_size:
        raise BundleError(
            f"latents have the shape {tuple(latents.shape)}, but this bundle's net takes "
            f"(N, {latent_size})"
        )
    if not latents.is_floating_point():
        raise BundleError(f"latents are {latents.dtype}: give floats")
    if not bool(latents.isfinite().all()):
        raise BundleError("latents hold NaN or infinity: encode gives neither")
    return latents


def check_weight_names(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Requires weights with the expected names, shapes and types.

    Args:
        expected: The net's tensors by name.
        found: The weights by name.

    Raises:
        BundleError: They differ; the message names the first difference.
    """
    for name in sorted({*expected, *found}):
        said = own_name(name)
        if name not in found:
            raise BundleError(f"{WEIGHTS}: {said} is missing; {CONFIG} describes another net")
        if name not in expected:
            raise BundleError(f"{WEIGHTS}: {said} is not of the net that {CONFIG} describes")
        want, have = expected[name], found[name]
        if (want.shape, want.dtype) != (have.shape, have.dtype):
            raise BundleError(
                f"{WEIGHTS}: {said} is {have.dtype} {_shape_text(have.shape)}, but the net that "
                f"{CONFIG} describes has {want.dtype} {_shape_text(want.shape)}"
            )


def check_weight_values(model: Autoencoder, config: BundleConfig) -> None:
    """Requires finite weights, within the clip range if the net was trained with one.

    Args:
        model: The net with its weights.
        config: The bundle's configuration.

    Raises:
        BundleError: A weight is not finite, or outside the range.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BundleError(f"{WEIGHTS}: {own_name(name)} holds NaN or infinity")
    if config.train.clips:
        largest = max(float(w.detach().abs().max()) for w in penalised_weights(model))
        # Compared as float32: that is what the weights were clamped to.
        if largest > float(torch.tensor(config.train.clip, dtype=torch.float32)):
            raise BundleError(
                f"{WEIGHTS}: a weight is {largest:g}, outside the clip of {config.train.clip:g}"
            )


def _shape_hint(shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> str:
    channels, height, width = image_shape
    if shape[1:] == (height, width, channels):
        return ": move the channels first, images.transpose(0, 3, 1, 2) in numpy"
    if shape == image_shape:
        return ": for one image, give images[None]"
    if channels == 1 and shape[1:] == (height, width):
        return ": add the channel, images[:, None]"
    return ": convert them first"


def _shape_text(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(["N", *map(str, shape)] if len(shape) == 3 else map(str, shape)) + ")"
