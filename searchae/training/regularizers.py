"""Regularization of the weights: clipping and the L1 penalty."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from searchae.config import TrainParams

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def penalised_weights(model: nn.Module) -> list[Tensor]:
    """Returns all trainable weights and biases but the scale and shift of normalisation layers.

    Those two set the size of activations: a scale starts at 1, and a clip of 0.5 would halve it.
    """
    return [
        parameter
        for module in model.modules()
        if not isinstance(module, _NORMS)
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad
    ]


@torch.no_grad()
def clip_(weights: list[Tensor], bound: float) -> None:
    """Clamps every value to [-bound, bound], in place; NaN stays NaN."""
    torch._foreach_clamp_min_(weights, -bound)  # noqa: SLF001  # has no public name
    torch._foreach_clamp_max_(weights, bound)  # noqa: SLF001


def l1_penalty(params: TrainParams, *, latents: Tensor, weights: list[Tensor]) -> Tensor:
    """Returns the L1 penalty: ``l1_weight`` times the mean absolute value of ``l1_target``.

    Args:
        params: The parameters, with an L1 regularizer.
        latents: Float (N, latent_size).
        weights: What ``penalised_weights`` returned.

    Returns:
        A float scalar tensor.
    """
    if params.l1_target == "latent":
        return params.l1 * latents.abs().mean()
    total = torch.stack([w.abs().sum() for w in weights]).sum()
    return params.l1 * total / sum(w.numel() for w in weights)
