"""3x3 convolutions through the compiled library, with gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

FEW = 8
"""Fewer input channels are convolved directly, if their gradient is not wanted."""
_TILES_A_PART = 64
_TOLERANCE = 1e-3  # relative; rounding alone stays below 1e-5


class Activation(NamedTuple):
    """What comes last, told as ``winograd.c`` wants it; ``NONE`` to ``sigmoid`` are the choices."""

    kind: int
    below: float = 0.0


NONE, TANH, SIGMOID = Activation(0), Activation(3), Activation(4)


def leaky_relu(slope: float) -> Activation:
    """``slope * x`` below 0; ReLU with a slope of 0."""
    return Activation(1, slope)


def elu(alpha: float) -> Activation:
    """``alpha * (e^x - 1)`` below 0; ``alpha`` is above 0."""
    return Activation(2, alpha)


class _Job(ctypes.Structure):
    """``Shape`` and ``Job`` of ``winograd.c``."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("images", "height", "width", "in_", "out", "up", "pool", "direct", "kind")
        ),
        ("below", ctypes.c_float),
        *((name, ctypes.c_int64) for name in ("parts", "next", "failed")),
        *(
            (name, ctypes.c_void_p)
            for name in ("x", "u", "bias", "y", "which", "dy", "ut", "dx", "du", "dbias")
        ),
    ]


class Convolutions:
    """Convolutions with 3x3 kernels, a stride of 1 and a padding of 1, by Winograd's algorithm.

    Rounding is some 5 times that of a direct convolution: a few 1e-6 of the largest value. With a
    given number of torch's threads results are the same to the bit.

    Args:
        library: Of ``build.load``.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        integer, pointer = ctypes.c_int64, ctypes.c_void_p
        library.winograd_lanes.restype = integer
        library.winograd_weights_size.restype = integer
        library.winograd_weights_size.argtypes = [integer] * 2
        library.winograd_weights.restype = None
        library.winograd_weights.argtypes = [*[integer] * 2, pointer, *[integer] * 2, pointer]
        for run in (library.winograd_forward_parts, library.winograd_backward_parts):
            run.argtypes, run.restype = [pointer], None
        self.lanes = int(library.winograd_lanes())

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
        """Upsamples by 2 (nearest), convolves, max-pools by 2, and activates, as it is told.

        Args:
            images: Float32 (N, C, H, W), on the CPU; channels last in memory, or it is copied so.
            weight: Float32 (K, C, 3, 3), as of ``nn.Conv2d``.
            bias: Float32 (K,).
            up: Whether the input is upsampled first.
            pool: Whether the output is pooled; of an odd size the last row or column is dropped.
            activation: What comes last.

        Returns:
            Float32 (N, K, H', W'), channels last.

        Raises:
            MemoryError: There is no memory for scratch.
        """
        found: Tensor = _Convolution.apply(self, images, weight, bias, up, pool, activation)
        return found

    def padded(self, channels: int) -> int:
        """Channels rounded up to whole vectors."""
        return -(-channels // self.lanes) * self.lanes

    def transformed(self, weight: Tensor) -> Tensor:
        """Weights (columns, rows, 3, 3) as a product at each of the 36 points wants them."""
        taps = weight.detach().permute(2, 3, 1, 0)
        if taps.stride(3) != 1 or taps.stride(0) != 3 * taps.stride(1):
            taps = taps.contiguous()
        rows, columns = taps.shape[2:]
        u = torch.empty(self._library.winograd_weights_size(rows, columns))
        self._library.winograd_weights(
            rows, columns, taps.data_ptr(), taps.stride(1), taps.stride(2), u.data_ptr()
        )
        return u

    def padded_taps(self, weight: Tensor) -> Tensor:
        """Weights (K, C, 3, 3) as a direct convolution wants them: (3, 3, C, padded K)."""
        out = weight.shape[0]
        taps = weight.detach().permute(2, 3, 1, 0)
        return F.pad(taps, (0, self.padded(out) - out)).contiguous()

    def run(self, name: str, job: _Job) -> None:
        """Runs ``winograd_<name>_parts`` in as many threads as the job has parts.

        Raises:
            MemoryError: There is no memory for scratch.
        """
        function = getattr(self._library, f"winograd_{name}_parts")
        job.next = job.failed = 0
        together = _torch_s_threads()
        if job.parts > 1 and together is not None:
            together(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(job), job.parts, 0)
        else:
            function(ctypes.byref(job))
        if job.failed:
            raise MemoryError("no memory for a convolution's scratch")


def can_use_threads() -> bool:
    """Whether more than one thread would take part."""
    return _torch_s_threads() is not None


@cache
def _torch_s_threads() -> Callable[..., None] | None:
    """Runs a C function in some of torch's own threads; None where they are not GNU OpenMP's.

    Threads of ours would share the cores with torch's, which go on spinning for a while after
    their work is done.
    """
    try:
        # What torch itself was linked with is found through it.
        torch_s_own = ctypes.CDLL(torch._C.__file__)
    except OSError:
        return None
    parallel: Callable[..., None] | None = getattr(torch_s_own, "GOMP_parallel", None)
    if parallel is not None:
        integer, pointer = ctypes.c_uint, ctypes.c_void_p
        parallel.argtypes = [pointer, pointer, integer, integer]  # type: ignore[attr-defined]
        parallel.restype = None  # type: ignore[attr-defined]
    return parallel


def tiles(images: int, height: int, width: int) -> int:
    """Tiles of 4x4 outputs in a batch."""
    return images * -(-height // 4) * -(-width // 4)


def _parts(images: int, height: int, width: int) -> int:
    """Into how many parts a batch is cut: torch's threads, where there is work for them.

    Each part has a gradient of the weights of its own.
    """
    enough = tiles(images, height, width) // _TILES_A_PART
    return max(1, min(torch.get_num_threads(), images, enough))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        convolutions: Convolutions,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        up: bool,
        pool: bool,
        activation: Activation,
    ) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = images.shape
        if up:
            height, width = 2 * height, 2 * width
        step = 2 if pool else 1
        size = (count, weight.shape[0], height // step, width // step)
        outputs = torch.empty(size, memory_format=torch.channels_last)
        which = torch.empty_like(outputs, dtype=torch.uint8) if pool else None
        # Few channels of the images themselves, which need no gradient.
        direct = channels < FEW and not up and not ctx.needs_input_grad[1]
        u = convolutions.padded_taps(weight) if direct else convolutions.transformed(weight)
        added = torch.zeros(weight.shape[0]) if bias is None else bias.detach().contiguous()
        job = _job(images, weight, up, pool, direct, activation)
        job.u, job.bias, job.y, job.which = _at(u), _at(added), _at(outputs), _at(which)
        convolutions.run("forward", job)
        ctx.save_for_backward(images, weight, which, None if activation == NONE else outputs)
        ctx.convolutions, ctx.biased = convolutions, bias is not None
        ctx.told = up, pool, direct, activation
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, toward: Tensor) -> Any:
        images, weight, which, outputs = ctx.saved_tensors
        convolutions = ctx.convolutions
        out, channels = weight.shape[:2]
        toward = toward.contiguous(memory_format=torch.channels_last)
        dx = ut = None
        if ctx.needs_input_grad[1]:
            dx = torch.empty_like(images, memory_format=torch.channels_last)
            ut = convolutions.transformed(weight.transpose(0, 1))
        job = _job(images, weight, *ctx.told)
        wide = convolutions.padded(out)
        points = 9 if job.direct else 36
        du, dbias = torch.zeros(job.parts, points, channels, wide), torch.zeros(job.parts, wide)
        job.y, job.dy, job.which = _at(outputs), _at(toward), _at(which)
        job.ut, job.dx = _at(ut), _at(dx)
        job.du, job.dbias = _at(du), _at(dbias)
        convolutions.run("backward", job)
        total = du.sum(0) if job.parts > 1 else du[0]
        if not job.direct:
            total = _adjoint().mm(total.view(36, -1))
        dw = total.view(3, 3, channels, wide)[..., :out]
        db = dbias.sum(0)[:out] if ctx.biased else None
        return None, dx, dw.permute(3, 2, 0, 1), db, None, None, None


def _job(
    images: Tensor, weight: Tensor, up: bool, pool: bool, direct: bool, activation: Activation
) -> _Job:
    count, channels, height, width = images.shape
    scale = 2 if up else 1
    size = (count, scale * height, scale * width)
    about = (*size, channels, weight.shape[0], up, pool, direct, *activation)
    return _Job(*about, parts=_parts(*size), x=_at(images))


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@cache
def _adjoint() -> Tensor:
    """What takes the gradient of the 36 products back to the 9 weights: (9, 36)."""
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


def self_check(convolutions: Convolutions) -> str:
    """Compares some convolutions and their gradients with torch's; what is wrong, or nothing."""
    cases: list[tuple[int, bool, bool, bool, Activation, Callable[[Tensor], Tensor]]] = [
        # channels, up, pool, whether the images' gradient is wanted (if not, few are direct)
        (5, True, True, True, elu(1.0), F.elu),
        (3, False, True, False, SIGMOID, torch.sigmoid),
        (2 * convolutions.lanes + 3, False, False, True, TANH, torch.tanh),
        (4, True, False, True, leaky_relu(0.1), partial(F.leaky_relu, negative_slope=0.1)),
    ]
    with torch.enable_grad():
        offs = [_off(convolutions, *case) for case in cases]
    good = all(off <= _TOLERANCE for off in offs)  # no number is not good
    return "" if good else f"they differ from PyTorch's by {max(offs):.2g} of the largest value"


def _off(
    run: Convolutions,
    channels: int,
    up: bool,
    pool: bool,
    first: bool,
    activation: Activation,
    plain_activation: Callable[[Tensor], Tensor],
) -> float:
    """The largest difference, relative to the largest value; NaN where one is."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, 6, 5, generator=draws).requires_grad_(first)
    weight = torch.randn(20, channels, 3, 3, generator=draws).requires_grad_()
    bias = torch.randn(20, generator=draws).requires_grad_()
    inputs = F.interpolate(images, scale_factor=2) if up else images
    plain = F.conv2d(inputs, weight, bias, padding=1)
    plain = plain_activation(F.max_pool2d(plain, 2) if pool else plain)
    compiled = run(images, weight, bias, up=up, pool=pool, activation=activation)
    wanted = [images, weight, bias] if first else [weight, bias]
    toward = torch.linspace(-1, 1, plain.numel()).view(plain.shape)
    mine, own = (
        # Told the outputs' gradients instead, torch would import its compiler: a second.
        [outputs.detach(), *torch.autograd.grad((outputs * toward).sum(), wanted)]
        for outputs in (compiled, plain)
    )
    offs = [(a - b).abs().max() / b.abs().max() for a, b in zip(mine, own, strict=True)]
    return float(torch.stack(offs).max())
