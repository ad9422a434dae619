"""A check of the compiled convolutions against PyTorch's, before a process uses them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from searchae.training.kernels.convolution import Convolutions
from searchae.training.kernels.library import SIGMOID, TANH, Activation, elu, leaky_relu

_TOLERANCE = 1e-3  # relative to the largest value; rounding alone stays below 1e-5


class _Case(NamedTuple):
    """One convolution to check, with 20 output channels.

    Attributes:
        channels: Input channels.
        activation: The activation of the compiled convolution.
        torch_activation: The same in PyTorch.
        up: See ``Convolutions.__call__``.
        pool: See ``Convolutions.__call__``.
        image_gradient: Whether the images' gradient is needed; if not, few channels are convolved
            directly.
    """

    channels: int
    activation: Activation
    torch_activation: Callable[[Tensor], Tensor]
    up: bool = False
    pool: bool = False
    image_gradient: bool = True


def self_check(convolutions: Convolutions) -> str:
    """Compares some convolutions and their gradients with PyTorch's.

    Returns:
        What is wrong; empty if nothing is.
    """
    cases = [
        _Case(5, elu(1.0), F.elu, up=True, pool=True),
        _Case(3, SIGMOID, torch.sigmoid, pool=True, image_gradient=False),
        _Case(2 * convolutions.lanes + 3, TANH, torch.tanh),
        _Case(4, leaky_relu(0.1), partial(F.leaky_relu, negative_slope=0.1), up=True),
    ]
    with torch.enable_grad():
        errors = [_largest_error(convolutions, case) for case in cases]
    good = all(error <= _TOLERANCE for error in errors)  # false for NaN
    return "" if good else f"they differ from PyTorch's by {max(errors):.2g} of the largest value"


def _largest_error(convolutions: Convolutions, case: _Case) -> float:
    """Returns the largest difference relative to the largest value; NaN if any value is NaN."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(2, case.channels, 6, 5, generator=draws)
    images.requires_grad_(case.image_gradient)
    weight = torch.randn(20, case.channels, 3, 3, generator=draws).requires_grad_()
    bias = torch.randn(20, generator=draws).requires_grad_()
    compiled = convolutions(
        images, weight, bias, up=case.up, pool=case.pool, activation=case.activation
    )
    inputs = F.interpolate(images, scale_factor=2) if case.up else images
    plain = F.conv2d(inputs, weight, bias, padding=1)
    plain = case.torch_activation(F.max_pool2d(plain, 2) if case.pool else plain)
    wanted = [images, weight, bias] if case.image_gradient else [weight, bias]
    toward = torch.linspace(-1, 1, plain.numel()).view(plain.shape)
    found, expected = (
        # grad_outputs would be simpler, but makes torch import its compiler, which takes a second.
        [outputs.detach(), *torch.autograd.grad((outputs * toward).sum(), wanted)]
        for outputs in (compiled, plain)
    )
    errors = [(a - b).abs().max() / b.abs().max() for a, b in zip(found, expected, strict=True)]
    return float(torch.stack(errors).max())
