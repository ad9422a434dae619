"""An encoder and a decoder under one roof, with images in [0, 1] outside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from searchae.models.layout import Shape


class Autoencoder(nn.Module):
    """Maps images to latents and back.

    Inside, images lie in the model's own range: [0, 1], or [-1, 1] if ``symmetric``. Outside
    they are always float in [0, 1].

    Attributes:
        encoder: Images in the model's own range (N, C, H, W) to latents (N, latent_size).
        decoder: Latents (N, latent_size) to images in the model's own range (N, C, H, W).
        image_shape: (C, H, W).
        latent_size: Numbers in the latent of one image.
        symmetric: Whether the model's own range is [-1, 1].
    """

    def __init__(
        self,
        encoder: nn.Sequential,
        decoder: nn.Sequential,
        *,
        image_shape: Shape,
        latent_size: int,
        symmetric: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.image_shape = image_shape
        self.latent_size = latent_size
        self.symmetric = symmetric

    def to_own_range(self, images: Tensor) -> Tensor:
        """Images in [0, 1], any shape, in the model's own range."""
        return images * 2 - 1 if self.symmetric else images

    def to_unit_range(self, images: Tensor) -> Tensor:
        """Images in the model's own range, any shape, in [0, 1]; the inverse, not clamped."""
        return (images + 1) / 2 if self.symmetric else images

    def encode(self, images: Tensor) -> Tensor:
        """Images, float (N, C, H, W) in [0, 1], to latents, float (N, latent_size)."""
        latents: Tensor = self.encoder(self.to_own_range(images))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents, float (N, latent_size), to images, float (N, C, H, W), clamped to [0, 1]."""
        return self.to_unit_range(self.decoder(latents)).clamp(0, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructs images, float (N, C, H, W) in [0, 1].

        Returns:
            The same shape; in [0, 1] in evaluation mode. In training mode nothing is clamped,
            since a clamped pixel would have no gradient.
        """
        reconstruction = self.to_unit_range(self.decoder(self.encode(images)))
        return reconstruction if self.training else torch.clamp(reconstruction, 0, 1)
