"""What holds the weights back: clipping and L1."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from searchae.config import TrainParams


def penalised_weights(model: nn.Module) -> list[Tensor]:
    """Every trainable weight and bias except the normalisation layers' scale and shift.

    Those two set the size of activations, not of weights: a scale starts at 1, which a clip
    of 0.5 would halve.
    """
    return [
        parameter
        for module in model.modules()
        if not isinstance(module, _BatchNorm)
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad
    ]


@torch.no_grad()
def clip_(weights: list[Tensor], bound: float) -> None:
    """Clamps every value to [-bound, bound]; NaN stays NaN."""
    torch._foreach_clamp_min_(weights, -bound)
    torch._foreach_clamp_max_(weights, bound)


def l1_penalty(params: TrainParams, *, latents: Tensor, weights: list[Tensor]) -> Tensor:
    """``l1_weight`` times the mean absolute latent, or weight, as ``l1_target`` says.

    Args:
        params: With an L1 regularizer.
        latents: Float (N, latent_size).
        weights: As ``penalised_weights`` gives them.

    Returns:
        Float, no dimensions.
    """
    if params.l1_target == "latent":
        return params.l1 * latents.abs().mean()
    total = torch.stack([w.abs().sum() for w in weights]).sum()
    return params.l1 * total / sum(w.numel() for w in weights)


def near_zero(values: list[Tensor]) -> Tensor:
    """How many numbers are below 1e-3 in magnitude; int64, no dimensions."""
    return torch.stack([(v.abs() < 1e-3).sum() for v in values]).sum()
