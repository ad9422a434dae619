"""3x3 convolutions by Winograd's algorithm, as differentiable PyTorch functions.

A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016 (arXiv
1509.09308): F(4x4, 3x3), with the matrices B, G and A of that paper. ``winograd.c`` explains how
forward and backward pass are computed.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from searchae.training.kernels.library import NONE, Activation, Job, WinogradLibrary

MIN_CHANNELS = 8
"""With fewer input channels, and no need of their gradient, a direct convolution is faster."""
_TILES_PER_PART = 64  # the least work that is worth a thread

_JoinedLayers = tuple[bool, bool, Activation]
"""``up``, ``pool`` and ``activation`` of ``Convolutions.__call__``."""


class Convolutions:
    """Convolutions with 3x3 kernels, stride 1 and padding 1, computed by the compiled library.

    Rounding errors are about 5 times those of a direct convolution: a few 1e-6 of the largest
    value. With a given number of torch's threads, results are equal to the bit.

    Args:
        library: What ``build.load`` returned.

    Attributes:
        lanes: Float32 values in a vector register of the CPU.

    Raises:
        AttributeError: The library lacks a function.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = WinogradLibrary(library)
        self.lanes = self._library.lanes

    def __call__(
        self,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *,
        up: bool = False,
        pool: bool = False,
        activation: Activation = NONE,
    ) -> Tensor:
        """Upsamples by 2 if asked to, convolves, max-pools by 2 if asked to, and activates.

        Args:
            images: Float32 (N, C, H, W), on the CPU; copied unless its memory format is channels
                last.
            weight: Float32 (K, C, 3, 3), as in ``nn.Conv2d``.
            bias: Float32 (K,).
            up: Whether to upsample the input by 2 (nearest neighbour) first.
            pool: Whether to max-pool the convolution's output by 2; the last row or column of an
                odd size is dropped.
            activation: The activation, which comes last.

        Returns:
            Float32 (N, K, H', W'), channels last.

        Raises:
            MemoryError: Scratch memory could not be allocated.
        """
        layers: _JoinedLayers = (up, pool, activation)
        found: Tensor = _Convolution.apply(self._library, images, weight, bias, layers)
        return found


def tiles(images: int, height: int, width: int) -> int:
    """Returns how many tiles of 4x4 outputs a batch of this height and width (in pixels) has."""
    return images * -(-height // 4) * -(-width // 4)


def _parts(images: int, height: int, width: int) -> int:
    """Returns how many parts a batch is split into: torch's threads, if there is enough work.

    Each part computes a weight gradient of its own.
    """
    enough = tiles(images, height, width) // _TILES_PER_PART
    return max(1, min(torch.get_num_threads(), images, enough))


class _Convolution(torch.autograd.Function):
    """The convolution with its gradients; the names are those of ``winograd.c``."""

    @staticmethod
    def forward(
        ctx: Any,
        library: WinogradLibrary,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        layers: _JoinedLayers,
    ) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = images.shape
        up, pool, activation = layers
        if up:
            height, width = 2 * height, 2 * width
        step = 2 if pool else 1
        size = (count, weight.shape[0], height // step, width // step)
        outputs = torch.empty(size, memory_format=torch.channels_last)
        which = torch.empty_like(outputs, dtype=torch.uint8) if pool else None
        direct = channels < MIN_CHANNELS and not up and not ctx.needs_input_grad[1]
        u = library.padded_taps(weight) if direct else library.transformed(weight)
        added = torch.zeros(weight.shape[0]) if bias is None else bias.detach().contiguous()
        job = _job(images, weight, layers, direct=direct)
        job.u, job.bias = _address(u), _address(added)
        job.y, job.which = _address(outputs), _address(which)
        library.run("forward", job)
        kept = None if activation == NONE else outputs
        ctx.save_for_backward(images, weight, which, kept)
        ctx.library, ctx.layers = library, layers
        ctx.has_bias, ctx.direct = bias is not None, direct
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        images, weight, which, outputs = ctx.saved_tensors
        library: WinogradLibrary = ctx.library
        out, channels = weight.shape[:2]
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = ut = None
        if ctx.needs_input_grad[1]:
            dx = torch.empty_like(images, memory_format=torch.channels_last)
            ut = library.transformed(weight.transpose(0, 1))
        job = _job(images, weight, ctx.layers, direct=ctx.direct)
        wide = library.padded(out)
        points = 9 if ctx.direct else 36
        du, dbias = torch.zeros(job.parts, points, channels, wide), torch.zeros(job.parts, wide)
        job.y, job.dy, job.which = _address(outputs), _address(dy), _address(which)
        job.ut, job.dx = _address(ut), _address(dx)
        job.du, job.dbias = _address(du), _address(dbias)
        library.run("backward", job)
        total = du.sum(0) if job.parts > 1 else du[0]
        if not ctx.direct:
            total = _weight_adjoint().mm(total.view(36, -1))
        dw = total.view(3, 3, channels, wide)[..., :out]
        db = dbias.sum(0)[:out] if ctx.has_bias else None
        return None, dx, dw.permute(3, 2, 0, 1), db, None


def _job(images: Tensor, weight: Tensor, layers: _JoinedLayers, *, direct: bool) -> Job:
    """Returns a job with its shape, its parts and its input."""
    up, pool, activation = layers
    count, channels, height, width = images.shape
    scale = 2 if up else 1
    size = (count, scale * height, scale * width)
    shape = (*size, channels, weight.shape[0], up, pool, direct, *activation)
    return Job(*shape, parts=_parts(*size), x=_address(images))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@cache
def _weight_adjoint() -> Tensor:
    """Returns the matrix (9, 36) that maps dU to dw: the transpose of G ⊗ G."""
    g = torch.tensor(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        dtype=torch.float64,
    )
    return torch.kron(g, g).float().t().contiguous()
