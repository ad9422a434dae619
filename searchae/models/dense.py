"""Dense encoders and decoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from searchae.config import ModelParams
from searchae.models.activations import activation
from searchae.models.gaussian import latent_layer
from searchae.models.layout import Shape


def encoder(params: ModelParams, *, image_shape: Shape) -> nn.Sequential:
    """Builds the encoder: images (N, C, H, W) to latents (N, latent_dim), through ``hidden``."""
    widths = (math.prod(image_shape), *params.hidden)
    on_latent = params.activation if params.latent_activation == "same" else "none"
    return nn.Sequential(
        nn.Flatten(),
        *_stack(widths, params.activation, last=params.activation),
        latent_layer(widths[-1], params),
        *activation(on_latent),
    )


def decoder(params: ModelParams, *, image_shape: Shape) -> nn.Sequential:
    """Builds the decoder: latents (N, latent_dim) to images (N, C, H, W), ``hidden`` reversed."""
    widths = (params.latent_dim, *reversed(params.hidden), math.prod(image_shape))
    return nn.Sequential(
        *_stack(widths, params.activation, last=params.output), nn.Unflatten(1, image_shape)
    )


def _stack(widths: Sequence[int], name: str, *, last: str) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths), start=2):
        modules += [nn.Linear(before, after), *activation(last if i == len(widths) else name)]
    return modules
