"""Residual blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions that keep the size, each after a norm and an activation, and a way past.

    K. He, X. Zhang, S. Ren and J. Sun, "Identity mappings in deep residual networks", ECCV 2016.

    Args:
        channels: Number of channels.
        before: Makes what comes before each convolution.
    """

    def __init__(self, channels: int, before: Callable[[], Sequence[nn.Module]]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                module
                for _ in range(2)
                for module in (*before(), nn.Conv2d(channels, channels, 3, padding=1))
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """Maps features, float (N, channels, H, W), to features of the same shape."""
        changed: Tensor = features + self.layers(features)
        return changed
