"""The layers and sizes of convolutional nets, computed and checked without torch.

Output sizes follow the formulas of ``torch.nn.Conv2d`` and ``torch.nn.ConvTranspose2d`` with
dilation 1 and no output padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from searchae.config import Layer, ModelParams
from searchae.errors import ModelError

Shape = tuple[int, int, int]
"""(C, H, W): channels, height and width, the last two in pixels."""


@dataclass(frozen=True)
class ConvLayer:
    """One convolution and the pooling or upsampling after it.

    Attributes:
        channels: Output channels.
        kernel: Height and width of the kernel in pixels.
        stride: Stride in pixels.
        padding: Zero padding on each side, in pixels.
        transpose: Whether the convolution is transposed.
        pool: Max-pooling by this factor; 1 for none.
        upsample: Nearest-neighbour upsampling by this factor, after pooling; 1 for none.
    """

    channels: int
    kernel: tuple[int, int]
    stride: int
    padding: int
    transpose: bool
    pool: int = 1
    upsample: int = 1

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the output's (C, H, W); a size below 1 means that the input is too small."""
        height, width = (
            self._size(n, kernel) for n, kernel in zip(shape[1:], self.kernel, strict=True)
        )
        return self.channels, height, width

    def _size(self, size: int, kernel: int) -> int:
        if self.transpose:
            size = (size - 1) * self.stride - 2 * self.padding + kernel
        else:
            size = (size + 2 * self.padding - kernel) // self.stride + 1
        return size // self.pool * self.upsample


@dataclass(frozen=True)
class ConvLayout:
    """The layers of a convolutional autoencoder.

    Attributes:
        encoder: The encoder's convolutions, from the image to ``features``.
        features: (C, H, W) of the encoder's last feature map.
        start: (C, H, W) of the input of the decoder's convolutions.
        decoder: The decoder's convolutions, from ``start`` to the image.
    """

    encoder: tuple[ConvLayer, ...]
    features: Shape
    start: Shape
    decoder: tuple[ConvLayer, ...]


def conv_layout(params: ModelParams, *, image_shape: Shape) -> ConvLayout:
    """Computes the layers of a net of kind ``conv``.

    Args:
        params: The model's parameters.
        image_shape: (C, H, W) of the images.

    Raises:
        ModelError: The net cannot be built, or its output has another shape than the images.
    """
    encoder = _without_idle_strides(_encoder(params, image_shape=image_shape), image_shape)
    shapes = _shapes(encoder, image_shape, key="encoder")
    features = shapes[-1]
    if params.bottleneck == "gap" and params.latent_dim != features[0]:
        raise ModelError(
            f'model.latent_dim: {params.latent_dim}, but bottleneck = "gap" averages the last '
            f'width to one number each: set latent_dim = {features[0]}, or bottleneck = "dense"'
        )
    start = (features[0], 1, 1) if params.bottleneck == "gap" else features
    decoder = _without_idle_strides(_decoder(params, shapes=shapes, start=start), start)
    _check_reconstruction(decoder, start=start, image_shape=image_shape)
    return ConvLayout(encoder, features, start, decoder)


def _encoder(params: ModelParams, *, image_shape: Shape) -> tuple[ConvLayer, ...]:
    if params.encoder is not None:
        return _explicit(params.encoder, transpose=False)
    if params.kernel_size % 2 == 0:
        raise ModelError(
            f"model.kernel_size: must be odd, not {params.kernel_size}: an even kernel has no "
            "centre, so that sizes would not halve; use explicit encoder and decoder layers"
        )
    if params.downsample == "pool":
        _check_divisible(params, image_shape)
        return tuple(_same(w, params.kernel_size, pool=2) for w in params.channels)
    kernel = params.kernel_size
    return tuple(
        ConvLayer(w, (kernel, kernel), stride=2, padding=kernel // 2, transpose=False)
        for w in params.channels
    )


def _without_idle_strides(layers: Sequence[ConvLayer], shape: Shape) -> tuple[ConvLayer, ...]:
    """Replaces strides from one pixel to one pixel by 1, which makes the same net.

    With torch 2.14 on a CPU with AMX, a convolution in bf16 with a stride and a single output pixel
    leaves the gradient of the weights that only padding reaches as it finds the memory: at random,
    and at times not a number.

    Args:
        layers: The layers.
        shape: (C, H, W) of their input.
    """
    found = []
    for layer in layers:
        output, plain = layer.output_shape(shape), replace(layer, stride=1)
        is_idle = shape[1:] == output[1:] == (1, 1) and plain.output_shape(shape) == output
        found.append(plain if is_idle else layer)
        shape = output
    return tuple(found)


def _decoder(
    params: ModelParams, *, shapes: Sequence[Shape], start: Shape
) -> tuple[ConvLayer, ...]:
    if params.decoder is not None:
        return _explicit(params.decoder, transpose=True)
    channels, height, width = shapes[-1]
    widen = (
        () if start == shapes[-1] else (ConvLayer(channels, (height, width), 1, 0, transpose=True),)
    )
    if params.downsample == "stride":
        return (*widen, *_mirrored(shapes))
    kernel, image_channels = params.kernel_size, shapes[0][0]
    up = (_same(w, kernel, transpose=True, upsample=2) for w in reversed(params.channels))
    return (*widen, *up, _same(image_channels, 3))


def _mirrored(shapes: Sequence[Shape]) -> Iterable[ConvLayer]:
    """Yields transposed convolutions that reverse the encoder's sizes exactly, also odd ones."""
    for small, large in pairwise(reversed(shapes)):
        # From n pixels, stride 2 and padding 1 make 2n with a kernel of 4, 2n - 1 with one of 3.
        kernel = tuple(4 if n == 2 * m else 3 for m, n in zip(small[1:], large[1:], strict=True))
        yield ConvLayer(large[0], (kernel[0], kernel[1]), stride=2, padding=1, transpose=True)


def _same(
    channels: int, kernel: int, *, transpose: bool = False, pool: int = 1, upsample: int = 1
) -> ConvLayer:
    """Returns a layer whose convolution keeps the size."""
    return ConvLayer(channels, (kernel, kernel), 1, kernel // 2, transpose, pool, upsample)


def _explicit(layers: Sequence[Layer], *, transpose: bool) -> tuple[ConvLayer, ...]:
    return tuple(
        ConvLayer(
            channels=layer.channels,
            kernel=(layer.kernel_size, layer.kernel_size),
            stride=layer.stride,
            padding=layer.padding,
            transpose=transpose if layer.transpose is None else layer.transpose,
            pool=layer.pool,
            upsample=layer.upsample,
        )
        for layer in layers
    )


def _shapes(layers: Sequence[ConvLayer], start: Shape, *, key: str) -> list[Shape]:
    """Returns the shapes before, between and after layers; ``key`` is for the error."""
    shapes = [start]
    for layer in layers:
        shapes.append(layer.output_shape(shapes[-1]))
        if min(shapes[-1]) < 1:
            raise ModelError(
                f"model.{key}: layer {len(shapes) - 1} leaves nothing of the image "
                f"({_route(shapes)}): use fewer layers, smaller strides or more padding"
            )
    return shapes


def _check_divisible(params: ModelParams, image_shape: Shape) -> None:
    step, (_, height, width) = 2 ** len(params.channels), image_shape
    if height % step == 0 and width % step == 0:
        return
    near = {max(1, height // step), math.ceil(height / step), math.ceil(width / step)}
    sizes = [f"{n * step}x{n * step}" for n in sorted(near)]
    raise ModelError(
        f'model.downsample: "pool" with {len(params.channels)} channels needs images whose height '
        f"and width are multiples of {step} pixels (such as {' or '.join(sizes)}), not "
        f'{height}x{width}: use downsample = "stride", which takes any size'
    )


def _check_reconstruction(
    decoder: Sequence[ConvLayer], *, start: Shape, image_shape: Shape
) -> None:
    shapes = _shapes(decoder, start, key="decoder")
    if shapes[-1] != image_shape:
        raise ModelError(
            f"model.decoder: gives {_text(shapes[-1])}, but the images are {_text(image_shape)} "
            f"(layer by layer: {_route(shapes)}): change kernel_size, stride or padding"
        )


def _route(shapes: Sequence[Shape]) -> str:
    return " -> ".join(_text(shape) for shape in shapes)


def _text(shape: Shape) -> str:
    """Returns a shape as ``CxHxW``."""
    return "x".join(str(n) for n in shape)
