"""The size of a net, without memory for its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch

from searchae.config import ModelParams
from searchae.errors import ModelError
from searchae.models.autoencoder import Autoencoder
from searchae.models.builder import build_model, parameter_count
from searchae.models.layout import Shape


@dataclass(frozen=True)
class ModelSize:
    """The size of a net.

    Attributes:
        parameters: Number of trainable parameters.
        latent: Number of values in the latent of an image.
    """

    parameters: int
    latent: int


MOST_PARAMETERS = 2**31 - 1
"""Nets with more are refused: such a size is a slip, and no machine of one GPU trains them."""


def build_on_meta(params: ModelParams, image_shape: Shape) -> Autoencoder:
    """Builds a net on the meta device, without memory for its weights.

    A net of one's own is built on the CPU, since not all code runs on the meta device.

    Args:
        params: The model's parameters.
        image_shape: (C, H, W) of the images.

    Raises:
        ModelError: The model cannot be built for such images, or is larger than any that can be
            trained.
    """
    try:
        with memoryless(params):
            model = build_model(params, image_shape=image_shape)
    except RuntimeError as e:  # torch's: the size of a tensor overflows
        raise ModelError(f"the net is too large: {e}") from e
    if (count := parameter_count(model)) > MOST_PARAMETERS:
        raise ModelError(
            f"the net has {count:,} parameters, more than the {MOST_PARAMETERS:,} that can be "
            "trained: make latent_dim, channels or hidden smaller"
        )
    return model


@contextmanager
def memoryless(params: ModelParams) -> Iterator[None]:
    """Within the block, nets are built without memory, where that can be.

    Args:
        params: The net. One's own is built on the CPU, and uses up no random numbers.
    """
    if params.kind == "python":
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            yield
    else:
        with torch.device("meta"):
            yield


@lru_cache(maxsize=4096)
def model_size(params: ModelParams, image_shape: Shape) -> ModelSize:
    """Returns the size of a net, which is built on the meta device.

    Args:
        params: The model's parameters.
        image_shape: (C, H, W) of the images.

    Raises:
        ModelError: The model cannot be built for such images.
    """
    model = build_on_meta(params, image_shape)
    return ModelSize(parameter_count(model), model.latent_size)
