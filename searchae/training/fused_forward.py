"""A faster forward pass for training, mathematically equal to the model's own.

The model is left as it was built. The modules here share its parameters, so that gradients arrive
there; checkpoints, bundles and the last evaluation of a trial use the plain model.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchae.models import ACTIVATION_MODULES, Autoencoder
from searchae.training.kernels.convolution import MIN_CHANNELS, Convolutions, tiles
from searchae.training.kernels.library import (
    NONE,
    SIGMOID,
    TANH,
    Activation,
    elu,
    leaky_relu,
)
from searchae.training.precision import Precision

_MIN_SIDE_PX, _MIN_TILES = 3, 32  # below these PyTorch's own convolutions are faster; measured


class Forward:
    """The forward pass of an autoencoder, in the model's current mode.

    Args:
        model: The model; its modules and parameters are shared, not copied.
        precision: Of convolutions and matrix products; parameters and results are always float32.
        compiled: Compiled convolutions to use where they fit, for a float32 model on the CPU;
            None for PyTorch's own.
    """

    def __init__(
        self, model: Autoencoder, precision: Precision, compiled: Convolutions | None = None
    ) -> None:
        self._low = precision == "bf16"
        self._encoder = fused_forward(model.encoder, compiled)
        body, head = _split(model.decoder)
        self._body, self._head = fused_forward(body, compiled), head

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes and decodes images.

        Args:
            inputs: Float32 (N, C, H, W), in the model's own range.

        Returns:
            Latents (N, latent_size) and reconstructions (N, C, H, W), both float32, the latter
            in the model's own range and not clamped.
        """
        if not self._low:
            latents = self._encoder(inputs)
            return latents, self._head(self._body(latents))
        with torch.autocast(inputs.device.type, torch.bfloat16):
            latents = self._encoder(inputs)
            last = self._body(latents)
        # Not in bf16: near 1, a sigmoid would have steps of 1/256, as coarse as 8-bit images.
        return latents.float(), self._head(last.float())


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


def fused_forward(stack: nn.Sequential, compiled: Convolutions | None = None) -> nn.Sequential:
    """Returns an equivalent of a stack of layers, with layers joined where that saves work.

    Args:
        stack: The model's layers; their parameters are shared.
        compiled: See ``Forward``.
    """
    modules: list[nn.Module] = []
    rest = list(stack)
    while rest:
        module, count = _fused_prefix(rest, compiled)
        modules.append(module)
        rest = rest[count:]
    return nn.Sequential(*modules)


def uses_compiled(model: Autoencoder, compiled: Convolutions) -> bool:
    """Whether compiled convolutions would be used in any layer of a model."""
    return any(
        isinstance(module, CompiledConvolution)
        for stack in (model.encoder, model.decoder)
        for module in fused_forward(stack, compiled)
    )


def _fused_prefix(layers: list[nn.Module], compiled: Convolutions | None) -> tuple[nn.Module, int]:
    """Returns a module that replaces the first layers, and how many it replaces."""
    up = _upsamples_by_2(layers[0])
    convolution = layers[1] if up and len(layers) > 1 else layers[0]
    if not isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d):
        return layers[0], 1
    count = 2 if up else 1
    pool = len(layers) > count and _pools_by_2(layers[count])
    if compiled and CompiledConvolution.fits(convolution, pool=pool):
        count += pool
        activation = _activation(layers[count]) if len(layers) > count else None
        count += activation is not None
        plain = fused_forward(nn.Sequential(*layers[:count]))
        return CompiledConvolution(
            plain, compiled, convolution, up=up, pool=pool, activation=activation or NONE
        ), count
    if up and UpsampledConvolution.fits(convolution):
        return UpsampledConvolution(convolution), 2
    return layers[0], 1


def _upsamples_by_2(module: nn.Module) -> bool:
    return isinstance(module, nn.Upsample) and module.mode == "nearest" and module.scale_factor == 2


def _activation(module: nn.Module) -> Activation | None:
    """Returns a module as an activation of the kernels; None if they have no such activation."""
    match module:
        case nn.ReLU():
            return leaky_relu(0.0)
        case nn.LeakyReLU() if module.negative_slope >= 0:
            return leaky_relu(module.negative_slope)
        case nn.ELU() if module.alpha > 0:
            return elu(module.alpha)
        case nn.Tanh():
            return TANH
        case nn.Sigmoid():
            return SIGMOID
    return None


def _pools_by_2(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.MaxPool2d)
        and module.kernel_size == module.stride == 2
        and module.padding == 0
        and module.dilation == 1
        and not module.ceil_mode
        and not module.return_indices
    )


def _split(decoder: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """Splits the decoder before its output activation, unless layers with parameters follow it."""
    modules = list(decoder)
    heads = [i for i, module in enumerate(modules) if isinstance(module, ACTIVATION_MODULES)]
    at = heads[-1] if heads else len(modules)
    if any(True for module in modules[at:] for _ in module.parameters()):
        at = len(modules)
    return nn.Sequential(*modules[:at]), nn.Sequential(*modules[at:])
