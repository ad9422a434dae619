"""The size of a net, without memory for its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from searchae.config import ModelParams
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


@lru_cache(maxsize=4096)
def model_size(params: ModelParams, image_shape: Shape) -> ModelSize:
    """Returns the size of a net, which is built on the meta device.

    Args:
        params: The model's parameters.
        image_shape: (C, H, W) of the images.

    Raises:
        ModelError: The model cannot be built for such images.
    """
    with torch.device("meta"):
        model = build_model(params, image_shape=image_shape)
    return ModelSize(parameter_count(model), model.latent_size)
