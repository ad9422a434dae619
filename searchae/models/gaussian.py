"""The latent of a variational autoencoder."""

from __future__ import annotations

from torch import Tensor, nn

from searchae.config import ModelParams


class GaussianLatent(nn.Module):
    """Maps features to a normal distribution with independent values.

    D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014. As a module of an
    encoder it gives the mean; training decodes a sample, see ``training.variational``.

    Args:
        features: Number of features.
        latent_dim: Number of values of a latent.
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the means, float (N, latent_dim), of features, float (N, features)."""
        means: Tensor = self.mean(features)
        return means

    def distribution(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means and logarithms of the variances, both float (N, latent_dim)."""
        return self.mean(features), self.log_variance(features)


def latent_layer(features: int, params: ModelParams) -> nn.Module:
    """Returns the layer that maps features to a latent."""
    layer = GaussianLatent if params.variational else nn.Linear
    return layer(features, params.latent_dim)
