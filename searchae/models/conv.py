"""Convolutional encoders and decoders, from a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from searchae.config import ModelParams
from searchae.models.activations import MONOTONE, activation
from searchae.models.layout import ConvLayer, ConvLayout, Shape


def encoder(params: ModelParams, *, plan: ConvLayout, image_shape: Shape) -> nn.Sequential:
    """Images (N, C, H, W) to latents (N, latent size).

    Without a bottleneck the last feature map is the latent, so that it has the latent's
    activation, and no norm if that is ``none``.
    """
    on_latent = params.activation if params.latent_activation == "same" else "none"
    own = params.bottleneck == "none"
    convolutions = _stack(
        plan.encoder, params, channels=image_shape[0], last=on_latent if own else params.activation
    )
    if own:
        return nn.Sequential(*convolutions, nn.Flatten())
    if params.bottleneck == "gap":
        down: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    else:
        down = [nn.Flatten(), nn.Linear(math.prod(plan.features), params.latent_dim)]
    return nn.Sequential(*convolutions, *down, *activation(on_latent))


def decoder(params: ModelParams, *, plan: ConvLayout) -> nn.Sequential:
    """Latents (N, latent size) to images (N, C, H, W); no norm in the last layer."""
    up: list[nn.Module] = []
    if params.bottleneck == "dense":
        up = [nn.Linear(params.latent_dim, math.prod(plan.start)), *activation(params.activation)]
    *hidden, last = plan.decoder
    return nn.Sequential(
        *up,
        nn.Unflatten(1, plan.start),
        *_stack(hidden, params, channels=plan.start[0], last=params.activation),
        *_block(
            last,
            channels=hidden[-1].channels if hidden else plan.start[0],
            name=params.output,
            norm=False,
        ),
    )


def latent_size(params: ModelParams, *, plan: ConvLayout) -> int:
    """Numbers in the latent of one image."""
    return math.prod(plan.features) if params.bottleneck == "none" else params.latent_dim


def _stack(
    layers: Sequence[ConvLayer], params: ModelParams, *, channels: int, last: str
) -> list[nn.Module]:
    """Hidden layers one after the other; ``last`` names the last one's activation."""
    modules: list[nn.Module] = []
    for i, layer in enumerate(layers, start=1):
        name = last if i == len(layers) else params.activation
        norm = params.batch_norm and name != "none"
        modules += _block(layer, channels=channels, name=name, norm=norm)
        channels = layer.channels
    return modules


def _block(layer: ConvLayer, *, channels: int, name: str, norm: bool) -> list[nn.Module]:
    """One convolution, its norm, activation ``name``, pooling and upsampling."""
    convolution = nn.ConvTranspose2d if layer.transpose else nn.Conv2d
    modules: list[nn.Module] = [
        convolution(
            channels,
            layer.channels,
            layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            # A norm takes any bias away again. Its gradient would be rounding error, which Adam
            # scales up to full steps.
            bias=not norm,
        )
    ]
    if norm:
        modules.append(nn.BatchNorm2d(layer.channels))
    modules += _pooled(activation(name), name=name, factor=layer.pool)
    if layer.upsample > 1:
        modules.append(nn.Upsample(scale_factor=layer.upsample, mode="nearest"))
    return modules


def _pooled(act: list[nn.Module], *, name: str, factor: int) -> list[nn.Module]:
    if factor == 1:
        return act
    pool = nn.MaxPool2d(factor)
    # A function that never falls commutes with the maximum: the same values, and only one pixel
    # in factor ** 2 has to go through it.
    return [pool, *act] if name in MONOTONE else [*act, pool]
