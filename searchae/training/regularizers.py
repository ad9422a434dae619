"""Regularization: clipping of the weights, the L1 penalty and the contractive penalty."""

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


def contractive_penalty(latents: Tensor, inputs: Tensor, directions: Tensor) -> Tensor:
    """Returns an unbiased estimate of the squared Frobenius norm of the latents' Jacobian.

    The penalty is that of S. Rifai et al., "Contractive auto-encoders: explicit invariance during
    feature extraction", ICML 2011. The Jacobian J itself would take a backward pass for each value
    of a latent. Its squared norm is the trace of J J^T, and so the expectation of v^T J J^T v, the
    squared norm of v^T J, for v of a standard normal distribution: M. F. Hutchinson, "A stochastic
    estimator of the trace of the influence matrix for Laplacian smoothing splines", Communications
    in Statistics 18 (3), 1989. That takes one pass, through which the loss is differentiated again.

    With batch normalisation a latent depends on the other images of its batch too; that part of the
    Jacobian is counted.

    Args:
        latents: Float (N, latent_size), computed from ``inputs`` with a graph for autograd.
        inputs: The net's input, float (N, C, H, W), which requires a gradient.
        directions: The v of each image, float (N, latent_size).

    Returns:
        The mean over the images: a float scalar tensor.
    """
    (products,) = torch.autograd.grad(latents, inputs, directions, create_graph=True)
    return products.square().sum() / len(inputs)
