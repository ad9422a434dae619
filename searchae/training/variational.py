"""The Kullback-Leibler divergence of a variational latent, and its weight."""

from __future__ import annotations

from torch import Tensor

from searchae.config import TrainParams


def sampled_latents(means: Tensor, log_variances: Tensor, draws: Tensor) -> Tensor:
    """Returns samples of normal distributions, differentiable in their parameters.

    Args:
        means: Float (N, latent_dim).
        log_variances: Logarithms of the variances, float (N, latent_dim).
        draws: Of a standard normal distribution, float (N, latent_dim).
    """
    return means + draws * (log_variances / 2).exp()


def divergence(means: Tensor, log_variances: Tensor) -> Tensor:
    """Returns the Kullback-Leibler divergence from a standard normal distribution.

    D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014, appendix B.

    Args:
        means: Float (N, latent_dim).
        log_variances: Logarithms of the variances, float (N, latent_dim).

    Returns:
        Summed over the values of a latent and averaged over the images: a float scalar tensor.
    """
    terms = means.square() + log_variances.exp() - log_variances - 1
    return terms.sum(1).mean() / 2


def divergence_weight(params: TrainParams, epoch: int) -> float:
    """Returns the weight of the divergence in an epoch; it rises linearly in the warm-up.

    I. Higgins et al., "beta-VAE: learning basic visual concepts with a constrained variational
    framework", ICLR 2017; the warm-up is that of C. K. Sonderby et al., "Ladder variational
    autoencoders", NeurIPS 2016.

    Args:
        params: How the net is trained.
        epoch: The epoch's number, from 1.
    """
    return params.beta * min(epoch / (params.beta_warmup_epochs + 1), 1.0)
