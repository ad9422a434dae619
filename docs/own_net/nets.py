"""Nets of one's own, for ``model.factory``: see docs/how-to/own-net.md."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(4, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, channels, H, W) to features of the same shape."""
        return features + self.layers(features)


class ResidualNet(nn.Module):
    """U-shaped: halves the image twice, and doubles it again, with residual blocks at each size."""

    def __init__(self, image_shape: tuple[int, int, int], width: int, blocks: int) -> None:
        super().__init__()
        channels = image_shape[0]
        self.down = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            *(ResidualBlock(2 * width) for _ in range(blocks)),
            nn.Conv2d(2 * width, 4, 1),
        )
        self.up = nn.Sequential(
            nn.Conv2d(4, 2 * width, 1),
            *(ResidualBlock(2 * width) for _ in range(blocks)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )

    def encode(self, images: Tensor) -> Tensor:
        """Images, float32 (N, C, H, W) in [0, 1], to latents (N, 4, H/4, W/4)."""
        return self.down(images)

    def decode(self, latents: Tensor) -> Tensor:
        """And back."""
        return torch.sigmoid(self.up(latents))


def build_residual(
    image_shape: tuple[int, int, int], width: int = 16, blocks: int = 1
) -> nn.Module:
    """What the study's ``factory`` names; its arguments are those of ``[model.args]``."""
    return ResidualNet(image_shape, width, blocks)


def build_from_notebook(image_shape: tuple[int, int, int], latent: int = 32) -> nn.Module:
    """A net as it stands in a notebook: modules ``encoder`` and ``decoder`` are enough."""
    size = image_shape[0] * image_shape[1] * image_shape[2]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Flatten(), nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, latent)
            )
            self.decoder = nn.Sequential(
                nn.Linear(latent, 128), nn.ReLU(), nn.Linear(128, size), nn.Sigmoid()
            )

        def forward(self, images: Tensor) -> Tensor:
            return self.decoder(self.encoder(images)).reshape(images.shape)

    return Net()
