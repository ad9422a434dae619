"""A model's forward pass in training: the same mathematics as the model's own, in less work.

The model itself stays as it was built. What is here shares its weights, so that gradients land
where they belong, and checkpoints, bundles and a trial's last evaluation know nothing of it.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchae.models import ACTIVATION_MODULES, Autoencoder
from searchae.training.kernels.convolution import (
    FEW,
    NONE,
    SIGMOID,
    TANH,
    Activation,
    Convolutions,
    elu,
    leaky_relu,
    tiles,
)
from searchae.training.precision import Precision

_SMALLEST, _FEWEST_TILES = 3, 32  # pixels a side; measured


class Forward:
    """Runs an autoencoder, in the mode that it is in.

    Args:
        model: Its modules and weights are shared, not copied.
        precision: Of convolutions and matrix products; weights and results are float32 in any.
        compiled: Convolutions that are used where they fit; None for PyTorch's alone. The model
            is float32 then, on the CPU.
    """

    def __init__(
        self, model: Autoencoder, precision: Precision, compiled: Convolutions | None = None
    ) -> None:
        self._low = precision == "bf16"
        self._encoder = fused_forward(model.encoder, compiled)
        body, head = _split(model.decoder)
        self._body, self._head = fused_forward(body, compiled), head

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes and decodes.

        Args:
            inputs: Float32 (N, C, H, W), in the model's own range.

        Returns:
            Latents (N, latent_size) and reconstructions (N, C, H, W), float32.
        """
        if not self._low:
            latents = self._encoder(inputs)
            return latents, self._head(self._body(latents))
        with torch.autocast(inputs.device.type, torch.bfloat16):
            latents = self._encoder(inputs)
            last = self._body(latents)
        # A sigmoid in bf16 has steps of 1/256 near 1: as coarse as the images themselves.
        return latents.float(), self._head(last.float())


class UpsampledConvolution(nn.Module):
    """Nearest-neighbour upsampling by 2 and a convolution, in one transposed convolution.

    Upsampling is a transposed convolution with ones(2, 2) and a stride of 2, so that the two
    together are one with the kernel ``w * ones(2, 2)``: (k + 1)^2 / 4 products a pixel instead of
    k^2, and no large image in between.

    Args:
        convolution: Whose weights are used; ``fits`` is true of it.
    """

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.convolution = convolution

    @staticmethod
    def fits(convolution: nn.Conv2d | nn.ConvTranspose2d) -> bool:
        """Whether a convolution can be joined with upsampling before it, and it saves work."""
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
        """Float (N, C, H, W) to (N, D, 2H, 2W), for a convolution that keeps the size."""
        own = self.convolution
        assert not isinstance(own.padding, str)  # such do not fit
        weight, padding = own.weight, own.padding
        if isinstance(own, nn.Conv2d):
            weight = weight.flip(2, 3).transpose(0, 1)
            padding = tuple(k - 1 - p for k, p in zip(own.kernel_size, padding, strict=True))
        wide = F.pad(weight, (1, 1, 1, 1))
        rows = wide[:, :, 1:] + wide[:, :, :-1]
        kernel = rows[..., 1:] + rows[..., :-1]
        return F.conv_transpose2d(images, kernel, own.bias, stride=2, padding=padding)


class CompiledConvolution(nn.Module):
    """A convolution with what goes along: upsampling before, max-pooling and activation after it.

    Batches of few or tiny images are left to PyTorch: what is done to the weights would cost more
    than is saved.

    Args:
        layers: The same in PyTorch.
        compiled: The kernels.
        convolution: Whose weights are used; ``fits`` is true of it.
        up: Whether its input is upsampled by 2.
        pool: Whether its output is max-pooled by 2.
        activation: What comes last.
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
        self._shuffles = up and not pool and convolution.out_channels < compiled.lanes

    @staticmethod
    def fits(module: nn.Conv2d | nn.ConvTranspose2d, *, pool: bool) -> bool:
        """Whether the kernels know a convolution, and are faster at it.

        With few input channels it is pooling along with it that pays.
        """
        return (
            module.kernel_size == (3, 3)
            and module.padding == (1, 1)
            and set(module.stride) == set(module.dilation) == {1}
            and module.groups == 1
            and module.padding_mode == "zeros"
            and set(module.output_padding) == {0}
            and (module.in_channels >= FEW or pool)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Float32 (N, C, H, W) to (N, D, H', W'), channels last."""
        scale = 2 if self._up else 1
        count, _, height, width = images.shape
        size = (count, scale * height, scale * width)
        if min(size[1:]) < _SMALLEST or tiles(*size) < _FEWEST_TILES:
            found: Tensor = self.layers(images)
            return found
        weight = self.convolution.weight
        if isinstance(self.convolution, nn.ConvTranspose2d):
            weight = weight.flip(2, 3).transpose(0, 1)
        bias = self.convolution.bias
        run = partial(self._compiled, activation=self._activation)
        if not self._shuffles:
            return run(images, weight, bias, up=self._up, pool=self._pool)
        bias = None if bias is None else bias.repeat(4)
        fours = run(images, _shuffled(weight), bias)
        # What F.pixel_shuffle does, which loses the memory format. Stacking copies whole rows of
        # both columns' outputs, forwards and backwards.
        count, _, height, width = fours.shape
        above, below = fours.permute(0, 2, 3, 1).view(count, height, width, 2, -1).unbind(3)
        pixels = torch.stack([above, below], 2)
        return pixels.view(count, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def _shuffled(weight: Tensor) -> Tensor:
    """Upsampling by 2 and a 3x3 convolution as one before upsampling, with four times the outputs.

    Each of the four pixels that one becomes has outputs of its own, row by row: few outputs fill
    a vector so.

    Args:
        weight: Float (K, C, 3, 3).

    Returns:
        Float (4 K, C, 3, 3).
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
    # (column parity, row parity, K, C, 3, 3)
    return both.transpose(0, 1).flatten(0, 2)


def fused_forward(stack: nn.Sequential, compiled: Convolutions | None = None) -> nn.Sequential:
    """The same layers, sharing their weights, joined where that saves work.

    Args:
        stack: As the model has it.
        compiled: See ``Forward``.
    """
    modules: list[nn.Module] = []
    rest = list(stack)
    while rest:
        module, count = _first_of(rest, compiled)
        modules.append(module)
        rest = rest[count:]
    return nn.Sequential(*modules)


def uses_compiled(model: Autoencoder, compiled: Convolutions) -> bool:
    """Whether compiled convolutions fit any layer of a net."""
    return any(
        isinstance(module, CompiledConvolution)
        for stack in (model.encoder, model.decoder)
        for module in fused_forward(stack, compiled)
    )


def _first_of(layers: list[nn.Module], compiled: Convolutions | None) -> tuple[nn.Module, int]:
    """What runs the first layers, and how many they are."""
    up = _doubles(layers[0])
    convolution = layers[1] if up and len(layers) > 1 else layers[0]
    if not isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d):
        return layers[0], 1
    count = 2 if up else 1
    pool = len(layers) > count and _halves(layers[count])
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


def _doubles(module: nn.Module) -> bool:
    return isinstance(module, nn.Upsample) and module.mode == "nearest" and module.scale_factor == 2


def _activation(module: nn.Module) -> Activation | None:
    """As the kernels know it; None of one that they do not, and of other modules."""
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


def _halves(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.MaxPool2d)
        and module.kernel_size == module.stride == 2
        and module.padding == 0
        and module.dilation == 1
        and not module.ceil_mode
        and not module.return_indices
    )


def _split(decoder: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """The decoder before and from its output activation, if nothing with weights follows."""
    modules = list(decoder)
    heads = [i for i, module in enumerate(modules) if isinstance(module, ACTIVATION_MODULES)]
    at = heads[-1] if heads else len(modules)
    if any(True for module in modules[at:] for _ in module.parameters()):
        at = len(modules)
    return nn.Sequential(*modules[:at]), nn.Sequential(*modules[at:])
