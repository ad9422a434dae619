"""The latent of a k-sparse autoencoder."""

from __future__ import annotations

from torch import Tensor, nn

from searchae.errors import ModelError
from searchae.models.autoencoder import Autoencoder


class KSparse(nn.Module):
    """Keeps the largest values of each latent in magnitude, and sets the others to 0.

    A. Makhzani and B. Frey, "k-Sparse autoencoders", arXiv 1312.5663, 2013. There the largest
    values are kept, which is the same where no latent is negative; of signed latents a large
    negative one says as much as a large positive one. The gradient reaches what is kept only.

    Args:
        active: How many are kept.
    """

    def __init__(self, active: int) -> None:
        super().__init__()
        self.active = active

    def forward(self, latents: Tensor) -> Tensor:
        """Returns the latents, float (N, latent_size), with zeros."""
        kept = latents.abs().topk(self.active, dim=1).indices
        # Exactly so many, also of equal values, as a threshold would not have.
        return latents.new_zeros(latents.shape).scatter(1, kept, latents.gather(1, kept))

    def extra_repr(self) -> str:
        """Returns what ``print`` shows of it."""
        return f"active={self.active}"


def make_k_sparse(model: Autoencoder, active: int) -> None:
    """Lets a net's encoder keep so many latents of each image only, wherever it is used.

    Args:
        model: The net.
        active: How many are kept.

    Raises:
        ModelError: The net has fewer latents, or none.
    """
    if not model.has_latent:
        raise ModelError("train.active_latents: the net has no latent")
    if active > model.latent_size:
        raise ModelError(
            f"train.active_latents: {active} of the latent's values cannot be kept, since it has "
            f"only {model.latent_size}"
        )
    model.encoder.append(KSparse(active))
