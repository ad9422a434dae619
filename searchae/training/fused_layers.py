"""Modules that compute several layers at once; they share the parameters of the model's modules."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchae.training.kernels.convolution import MIN_CHANNELS, Convolutions, tiles
from searchae.training.kernels.library import Activation

_MIN_SIDE_PX, _MIN_TILES = 3, 32  # below these PyTorch's own convolutions are faster; measured


class UpsampledConvolution(nn.Module):
    """Nearest-neighbour upsampling by 2 and a convolution, as one transposed convolution.

    Upsampling by 2 is a transposed convolution with the kernel ones(2, 2) and stride 2. Followed
    by a convolution with a kxk kernel w, it is a single transposed convolution with stride 2 and
    the kernel ``w * ones(2, 2)`` (a full convolution of the two kernels). That takes (k + 1)^2 / 4
    multiplications per output pixel instead of k^2, and the upsampled image is never stored.

    Args:
        convolution: The convolution, whose parameters are shared; ``fits`` must be true of it.
    """

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.convolution = convolution

    @staticmethod
    def fits(convolution: nn.Conv2d | nn.ConvTranspose2d) -> bool:
        """Whether a convolution can be joined with upsampling before it and this saves work."""
        return (
            not isinstance(convolution.padding, str)
            and all(
                p < k for p, k in zip(convolution.padding, convolution.kernel_size, strict=True)
            )
            and min(convolution.kernel_size) > 1
            and set(convolution.stride) == set(convolution.dilation) == {1}
            and convolution.groups == 1
            and convolution.padding_mode == "zeros"
            and set(convolution.output_padding) == {0}
        )

    def forward(self, images: Tensor) -> Tensor:
        """Upsamples and convolves images.

        Args:
            images: Float (N, C, H, W).

        Returns:
            Float (N, D, 2 H, 2 W), if the convolution keeps the size.
        """
        own = self.convolution
        assert not isinstance(own.padding, str)  # see fits
        weight, padding = own.weight, own.padding
        if isinstance(own, nn.Conv2d):
            weight = weight.flip(2, 3).transpose(0, 1)
            padding = tuple(k - 1 - p for k, p in zip(own.kernel_size, padding, strict=True))
        wide = F.pad(weight, (1, 1, 1, 1))
        rows = wide[:, :, 1:] + wide[:, :, :-1]
        kernel = rows[..., 1:] + rows[..., :-1]
        return F.conv_transpose2d(images, kernel, own.bias, stride=2, padding=padding)


class CompiledConvolution(nn.Module):
    """Upsampling, convolution, max-pooling and activation in one call of a compiled kernel.

    Batches of few or very small images run in PyTorch: transforming the weights would cost more
    than the kernel saves.

    Args:
        layers: The same layers in PyTorch.
        compiled: The compiled convolutions.
        convolution: The convolution, whose parameters are shared; ``fits`` must be true of it.
        up: Whether its input is upsampled by 2 (nearest neighbour).
        pool: Whether its output is max-pooled by 2.
        activation: The activation, which comes last.
    """

    def __init__(
        self,
        layers: nn.Sequential,
        compiled: Convolutions,
        convolution: nn.Conv2d | nn.ConvTranspose2d,
        *,
        up: bool,
        pool: bool,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.layers, self.convolution = layers, convolution
        self._compiled, self._up, self._pool, self._activation = compiled, up, pool, activation
        self._merges_upsampling = up and not pool and convolution.out_channels < compiled.lanes

    @staticmethod
    def fits(module: nn.Conv2d | nn.ConvTranspose2d, *, pool: bool) -> bool:
        """Whether the kernels support a convolution and are faster than PyTorch.

        With few input channels they are faster only if pooling is joined too.

        Args:
            module: The convolution.
            pool: Whether max-pooling by 2 follows it.
        """
        return (
            module.kernel_size == (3, 3)
            and module.padding == (1, 1)
            and set(module.stride) == set(module.dilation) == {1}
            and module.groups == 1
            and module.padding_mode == "zeros"
            and set(module.output_padding) == {0}
            and (module.in_channels >= MIN_CHANNELS or pool)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Runs the layers.

        Args:
            images: Float32 (N, C, H, W), on the CPU.

        Returns:
            Float32 (N, D, H', W'), channels last.

        Raises:
            MemoryError: The kernel's scratch memory cannot be allocated.
        """
        scale = 2 if self._up else 1
        count, _, height, width = images.shape
        size = (count, scale * height, scale * width)
        if min(size[1:]) < _MIN_SIDE_PX or tiles(*size) < _MIN_TILES:
            found: Tensor = self.layers(images)
            return found
        weight = self.convolution.weight
        if isinstance(self.convolution, nn.ConvTranspose2d):
            weight = weight.flip(2, 3).transpose(0, 1)
        bias = self.convolution.bias
        run = partial(self._compiled, activation=self._activation)
        if not self._merges_upsampling:
            return run(images, weight, bias, up=self._up, pool=self._pool)
        bias = None if bias is None else bias.repeat(4)
        quadruple = run(images, _merged_with_upsampling(weight), bias)
        # As F.pixel_shuffle, which does not keep the memory format. Stacking copies contiguous
        # rows, forwards and backwards.
        count, _, height, width = quadruple.shape
        above, below = quadruple.permute(0, 2, 3, 1).view(count, height, width, 2, -1).unbind(3)
        pixels = torch.stack([above, below], 2)
        return pixels.view(count, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def _merged_with_upsampling(weight: Tensor) -> Tensor:
    """Returns the kernel of a 3x3 convolution that includes nearest-neighbour upsampling by 2.

    The convolution with the returned kernel runs on the image before upsampling. Each of its
    pixels becomes 2x2 pixels, whose K outputs are separate channels. Four times the channels fill
    the CPU's vector registers where K alone would not.

    Args:
        weight: Float (K, C, 3, 3), the kernel on the upsampled image.

    Returns:
        Float (4 K, C, 3, 3); the first axis is (column parity, row parity, K).
    """
    before, here, after = weight.unbind(2)
    zero = torch.zeros_like(here)
    rows = torch.stack(
        [torch.stack([before, here + after, zero], 2), torch.stack([zero, before + here, after], 2)]
    )
    before, here, after = rows.unbind(4)
    zero = torch.zeros_like(here)
    both = torch.stack(
        [torch.stack([before, here + after, zero], 4), torch.stack([zero, before + here, after], 4)]
    )
    return both.transpose(0, 1).flatten(0, 2)
