"""A model's forward pass in training: the same mathematics as the model's own, in less work.

The model itself stays as it was built. What is here shares its weights, so that gradients land
where they belong, and evaluation, checkpoints and bundles know nothing of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchae.models import Autoencoder, activations
from searchae.training.precision import Precision


class Forward:
    """Runs an autoencoder for training.

    Args:
        model: In training mode; its modules and weights are shared, not copied.
        precision: Of convolutions and matrix products; weights and results are float32 in any.
    """

    def __init__(self, model: Autoencoder, precision: Precision) -> None:
        self._low = precision == "bf16"
        self._encoder = rewritten(model.encoder)
        body, head = _split(model.decoder)
        self._body, self._head = rewritten(body), head

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
    def fits(upsample: nn.Module, convolution: nn.Module) -> bool:
        """Whether two modules, one after the other, can be joined, and it saves work."""
        return (
            isinstance(upsample, nn.Upsample)
            and upsample.mode == "nearest"
            and upsample.scale_factor == 2
            and isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
            and not isinstance(convolution.padding, str)
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


def rewritten(stack: nn.Sequential) -> nn.Sequential:
    """The same layers, sharing their weights, joined where that saves work."""
    modules: list[nn.Module] = []
    for module in stack:
        if modules and UpsampledConvolution.fits(modules[-1], module):
            assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
            modules[-1] = UpsampledConvolution(module)
        else:
            modules.append(module)
    return nn.Sequential(*modules)


def _split(decoder: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """The decoder before and from its output activation, if nothing with weights follows."""
    modules = list(decoder)
    heads = [i for i, module in enumerate(modules) if isinstance(module, activations.MODULES)]
    at = heads[-1] if heads else len(modules)
    if any(True for module in modules[at:] for _ in module.parameters()):
        at = len(modules)
    return nn.Sequential(*modules[:at]), nn.Sequential(*modules[at:])
