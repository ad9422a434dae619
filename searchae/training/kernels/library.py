"""The functions of ``winograd.c`` as Python calls them, and the threads that they run in."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Activation(NamedTuple):
    """An activation of ``winograd.c``; make one with ``NONE`` to ``elu`` below.

    Attributes:
        kind: The number of its enumeration.
        below: The slope below 0 of ``leaky_relu``, or the alpha of ``elu``.
    """

    kind: int
    below: float = 0.0


NONE, TANH, SIGMOID = Activation(0), Activation(3), Activation(4)


def leaky_relu(slope: float) -> Activation:
    """``slope * x`` below 0 and x above; ReLU with a slope of 0."""
    return Activation(1, slope)


def elu(alpha: float) -> Activation:
    """``alpha * (e^x - 1)`` below 0 and x above; ``alpha`` must be above 0."""
    return Activation(2, alpha)


class Job(ctypes.Structure):
    """``Shape`` and ``Job`` of ``winograd.c``, where the fields are explained."""

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


class WinogradLibrary:
    """The compiled library.

    Args:
        library: What ``build.load`` returned.

    Attributes:
        lanes: Float32 values in a vector register of the CPU.

    Raises:
        AttributeError: The library lacks one of the functions.
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

    def padded(self, channels: int) -> int:
        """Returns a number of channels rounded up to whole vector registers."""
        return -(-channels // self.lanes) * self.lanes

    def transformed(self, weight: Tensor) -> Tensor:
        """Returns U = G w G', the weights of the 36 matrix products.

        Args:
            weight: Float32 (columns, rows, 3, 3) of the matrices, such as (K, C, 3, 3).

        Returns:
            Float32, one axis; its order is that of ``winograd.c``.
        """
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
        """Returns the weights of a direct convolution: (K, C, 3, 3) as (3, 3, C, padded K)."""
        out = weight.shape[0]
        taps = weight.detach().permute(2, 3, 1, 0)
        return F.pad(taps, (0, self.padded(out) - out)).contiguous()

    def run(self, name: str, job: Job) -> None:
        """Runs ``winograd_NAME_parts`` in as many threads as the job has parts.

        Args:
            name: ``forward`` or ``backward``.
            job: Its tensors must stay alive until this returns.

        Raises:
            MemoryError: Scratch memory could not be allocated.
        """
        function = getattr(self._library, f"winograd_{name}_parts")
        job.next = job.failed = 0
        parallel = _openmp_parallel()
        if job.parts > 1 and parallel is not None:
            parallel(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(job), job.parts, 0)
        else:
            function(ctypes.byref(job))
        if job.failed:
            raise MemoryError("no memory for a convolution's scratch")


def can_use_threads() -> bool:
    """Whether a job can run in more than one thread."""
    return _openmp_parallel() is not None


@cache
def _openmp_parallel() -> Callable[..., None] | None:
    """Returns GNU OpenMP's ``GOMP_parallel``, which runs a C function in torch's own threads.

    Other threads would compete with torch's for the cores: those wait actively for a while after
    their work is done.

    Returns:
        The function; None where torch does not use GNU OpenMP.
    """
    try:
        # The libraries that torch was linked with are found through its own.
        torch_library = ctypes.CDLL(torch._C.__file__)  # noqa: SLF001  # the path is not public
    except OSError:
        return None
    parallel: Callable[..., None] | None = getattr(torch_library, "GOMP_parallel", None)
    if parallel is not None:
        integer, pointer = ctypes.c_uint, ctypes.c_void_p
        parallel.argtypes = [pointer, pointer, integer, integer]  # type: ignore[attr-defined]
        parallel.restype = None  # type: ignore[attr-defined]
    return parallel
