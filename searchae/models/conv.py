"""Convolutional encoders and decoders, built from a layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import nn

from searchae.config import ModelParams
from searchae.models.activations import MONOTONE, activation
from searchae.models.gaussian import latent_layer
from searchae.models.layout import ConvLayer, ConvLayout, Shape
from searchae.models.residual import ResidualBlock


def encoder(params: ModelParams, *, layout: ConvLayout, image_shape: Shape) -> nn.Sequential:
    """Builds the encoder, which maps images (N, C, H, W) to latents (N, latent size).

    Without a bottleneck the last feature map is the latent: it has the latent's activation, and no
    batch normalisation if that is ``none``.

    Args:
        params: The model's parameters.
        layout: The layers.
        image_shape: (C, H, W) of the images.
    """
    on_latent = params.activation if params.latent_activation == "same" else "none"
    ends_in_latent = params.bottleneck == "none"
    convolutions = _stack(
        layout.encoder,
        params,
        channels=image_shape[0],
        last=on_latent if ends_in_latent else params.activation,
        ends_in_latent=ends_in_latent,
    )
    if ends_in_latent:
        return nn.Sequential(*convolutions, nn.Flatten())
    if params.bottleneck == "gap":
        down: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    else:
        features = math.prod(layout.features)
        down = [nn.Flatten(), latent_layer(features, params)]
    return nn.Sequential(*convolutions, *down, *activation(on_latent))


def decoder(params: ModelParams, *, layout: ConvLayout) -> nn.Sequential:
    """Builds the decoder, which maps latents (N, latent size) to images (N, C, H, W).

    The last layer has no batch normalisation.

    Args:
        params: The model's parameters.
        layout: The layers.
    """
    up: list[nn.Module] = []
    if params.bottleneck == "dense":
        up = [nn.Linear(params.latent_dim, math.prod(layout.start)), *activation(params.activation)]
    *hidden, last = layout.decoder
    return nn.Sequential(
        *up,
        nn.Unflatten(1, layout.start),
        *_stack(hidden, params, channels=layout.start[0], last=params.activation),
        *_block(
            last,
            channels=hidden[-1].channels if hidden else layout.start[0],
            name=params.output,
            norm=[],
        ),
    )


def latent_size(params: ModelParams, *, layout: ConvLayout) -> int:
    """Returns the number of values in one image's latent."""
    return math.prod(layout.features) if params.bottleneck == "none" else params.latent_dim


def _stack(
    layers: Sequence[ConvLayer],
    params: ModelParams,
    *,
    channels: int,
    last: str,
    ends_in_latent: bool = False,
) -> list[nn.Module]:
    """Returns the modules of several layers; ``last`` names the last layer's activation."""
    modules: list[nn.Module] = []
    for i, layer in enumerate(layers, start=1):
        name = last if i == len(layers) else params.activation
        norm = _norm(params, layer.channels) if name != "none" else []
        modules += _block(layer, channels=channels, name=name, norm=norm)
        channels = layer.channels
        if i == len(layers) and ends_in_latent:
            break
        if params.dropout:
            modules.append(nn.Dropout2d(params.dropout))
        before = partial(_before_convolution, params, channels)
        modules += [ResidualBlock(channels, before) for _ in range(params.residual_blocks)]
    return modules


def _norm(params: ModelParams, channels: int) -> list[nn.Module]:
    if params.group_norm:
        return [nn.GroupNorm(params.group_norm, channels)]
    return [nn.BatchNorm2d(channels)] if params.batch_norm else []


def _before_convolution(params: ModelParams, channels: int) -> list[nn.Module]:
    return [*_norm(params, channels), *activation(params.activation)]


def _block(layer: ConvLayer, *, channels: int, name: str, norm: list[nn.Module]) -> list[nn.Module]:
    """Returns one convolution with its norm, activation ``name``, pooling and upsampling."""
    convolution = nn.ConvTranspose2d if layer.transpose else nn.Conv2d
    modules: list[nn.Module] = [
        convolution(
            channels,
            layer.channels,
            layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            # Batch normalisation cancels a bias. Its gradient would be rounding error only, which
            # Adam would scale up to full steps.
            bias=not any(isinstance(module, nn.BatchNorm2d) for module in norm),
        ),
        *norm,
    ]
    modules += _pooled(activation(name), name=name, factor=layer.pool)
    if layer.upsample > 1:
        modules.append(nn.Upsample(scale_factor=layer.upsample, mode="nearest"))
    return modules


def _pooled(act: list[nn.Module], *, name: str, factor: int) -> list[nn.Module]:
    if factor == 1:
        return act
    pool = nn.MaxPool2d(factor)
    # Non-decreasing functions commute with the maximum, and after pooling they have to be
    # computed for one pixel in factor ** 2 only.
    return [pool, *act] if name in MONOTONE else [*act, pool]
