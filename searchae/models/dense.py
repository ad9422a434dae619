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
        *_hidden(widths, params),
        latent_layer(widths[-1], params),
        *activation(on_latent),
    )


def decoder(params: ModelParams, *, image_shape: Shape) -> nn.Sequential:
    """Builds the decoder: latents (N, latent_dim) to images (N, C, H, W), ``hidden`` reversed."""
    widths = (params.latent_dim, *reversed(params.hidden))
    return nn.Sequential(
        *_hidden(widths, params),
        nn.Linear(widths[-1], math.prod(image_shape)),
        *activation(params.output),
        nn.Unflatten(1, image_shape),
    )


def _hidden(widths: Sequence[int], params: ModelParams) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for before, after in pairwise(widths):
        modules += [nn.Linear(before, after), *activation(params.activation)]
        if params.dropout:
            modules.append(nn.Dropout(params.dropout))
    return modules
