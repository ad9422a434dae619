"""Out of memory and broken devices, in the many words of allocators and drivers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from searchae.errors import DeviceError, OutOfMemoryError

_FULL = (
    "DefaultCPUAllocator: can't allocate memory",
    "not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_BROKEN = ("CUDA error", "CUDA driver error", "cuDNN error", "CUBLAS_STATUS", "HIP error")
_OUR_FAULT = ("device-side assert", "invalid argument", "invalid configuration")
"""Errors that the driver raises of code that asks for nonsense, on any device."""


@contextmanager
def device_errors(doing: str) -> Iterator[None]:
    """Within it, a full or broken device raises an error of searchae's own.

    Args:
        doing: What goes on, for the message.

    Raises:
        OutOfMemoryError: The memory is full; a smaller trial may fit.
        DeviceError: The device has failed; another one may do better.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as e:
        raise _full(doing, e) from e
    except RuntimeError as e:
        text = str(e)
        if any(sign in text for sign in _FULL):
            raise _full(doing, e) from e
        broken = any(sign in text for sign in _BROKEN)
        if not broken or any(sign in text for sign in _OUR_FAULT):
            raise
        raise DeviceError(f"{doing}: the device failed ({_first_line(e)})") from e


def _full(doing: str, error: BaseException) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"{doing}: out of memory ({_first_line(error)}): lower train.batch_size or the model's "
        "widths, or run fewer workers on the device"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no details"])[0]
