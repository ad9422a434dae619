"""A faster forward pass for training, mathematically equal to the model's own.

The model is left as it was built. The modules here share its parameters, so that gradients arrive
there; checkpoints, bundles and the last evaluation of a trial use the plain model.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from searchae.models import ACTIVATION_MODULES, Autoencoder, GaussianLatent
from searchae.training.fused_layers import CompiledConvolution, UpsampledConvolution
from searchae.training.kernels.convolution import Convolutions
from searchae.training.kernels.library import NONE, SIGMOID, TANH, Activation, elu, leaky_relu
from searchae.training.precision import Precision
from searchae.training.variational import sampled_latents


class Forward:
    """The forward pass of an autoencoder, in the model's current mode.

    Args:
        model: The model; its modules and parameters are shared, not copied.
        precision: Of convolutions and matrix products; parameters and results are always float32.
        compiled: Compiled convolutions to use where they fit, for a float32 model on the CPU;
            None for PyTorch's own.
        is_contractive: Whether the encoder is to be differentiated twice, which compiled
            convolutions cannot be.
    """

    def __init__(
        self,
        model: Autoencoder,
        precision: Precision,
        compiled: Convolutions | None = None,
        *,
        is_contractive: bool = False,
    ) -> None:
        self._low = precision == "bf16"
        self._encoder = fused_forward(model.encoder, None if is_contractive else compiled)
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
        with self._autocast(inputs):
            latents = self._encoder(inputs)
            last = self._body(latents)
        return self._full(latents), self._head(self._full(last))

    def sampled(self, inputs: Tensor, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes images as distributions, and decodes a sample of each.

        Args:
            inputs: As of ``__call__``; the model is variational.
            draws: Of a standard normal distribution, float32 (N, latent_size).

        Returns:
            Means and logarithms of the variances (N, latent_size), and reconstructions, all
            float32, as of ``__call__``.
        """
        *layers, latent = self._encoder
        assert isinstance(latent, GaussianLatent)
        with self._autocast(inputs):
            features = inputs
            for layer in layers:
                features = layer(features)
            means, log_variances = map(self._full, latent.distribution(features))
            last = self._body(sampled_latents(means, log_variances, draws))
        return means, log_variances, self._head(self._full(last))

    def _autocast(self, inputs: Tensor) -> AbstractContextManager[object]:
        if not self._low:  # torch's own takes as long when it is not enabled
            return nullcontext()
        return torch.autocast(inputs.device.type, torch.bfloat16)

    def _full(self, values: Tensor) -> Tensor:
        # The head is not in bf16: near 1, a sigmoid would have steps of 1/256, as coarse as 8 bits.
        return values.float() if self._low else values


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
