"""The autoencoder module: an encoder and a decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from searchae.models.layout import Shape


class Autoencoder(nn.Module):
    """Maps images to latents and back.

    Encoder and decoder use the model's own range of pixel values: [0, 1], or [-1, 1] if
    ``symmetric``. The methods take and return images in [0, 1].

    Attributes:
        encoder: Maps images (N, C, H, W) in the model's own range to latents (N, latent_size).
        decoder: Maps latents (N, latent_size) to images (N, C, H, W) in the model's own range.
        image_shape: (C, H, W) of the images.
        latent_size: Number of values in one image's latent.
        symmetric: Whether the model's own range is [-1, 1] instead of [0, 1].
        has_latent: Whether the latent is one; a net of one's own may have none, and the encoder's
            output is then the reconstruction.
    """

    def __init__(
        self,
        encoder: nn.Sequential,
        decoder: nn.Sequential,
        *,
        image_shape: Shape,
        latent_size: int,
        symmetric: bool,
        has_latent: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.image_shape = image_shape
        self.latent_size = latent_size
        self.symmetric = symmetric
        self.has_latent = has_latent

    def to_own_range(self, images: Tensor) -> Tensor:
        """Converts images of any shape from [0, 1] to the model's own range."""
        return images * 2 - 1 if self.symmetric else images

    def to_unit_range(self, images: Tensor) -> Tensor:
        """Converts images of any shape from the model's own range to [0, 1], without clamping."""
        return (images + 1) / 2 if self.symmetric else images

    def encode(self, images: Tensor) -> Tensor:
        """Encodes images, float (N, C, H, W) in [0, 1], to latents, float (N, latent_size)."""
        latents: Tensor = self.encoder(self.to_own_range(images))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Decodes latents, float (N, latent_size), to images, float (N, C, H, W) in [0, 1]."""
        return self.to_unit_range(self.decoder(latents)).clamp(0, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructs images, float (N, C, H, W) in [0, 1].

        Returns:
            Float (N, C, H, W), in evaluation mode clamped to [0, 1]. In training mode values are
            not clamped, since clamped pixels have no gradient.
        """
        reconstruction = self.to_unit_range(self.decoder(self.encode(images)))
        return reconstruction if self.training else torch.clamp(reconstruction, 0, 1)
