"""Recognition of full memory and failed devices in the errors of allocators and drivers.

PyTorch raises most of them as a plain ``RuntimeError``, so that only the message tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from searchae.errors import DeviceError, OutOfMemoryError

_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "not enough memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUDA ran out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HOST_ALLOCATION_FAILED",  # cuDNN 9
    "DEVICE_ALLOCATION_FAILED",
)
_DEVICE_FAILED = ("CUDA error", "CUDA driver error", "cuDNN error", "CUBLAS_STATUS", "HIP error")
_PROGRAM_ERROR = ("device-side assert", "invalid argument", "invalid configuration")
"""CUDA errors that a bug in the program causes; another device would not help."""


@contextmanager
def device_errors(doing: str) -> Iterator[None]:
    """Converts errors of full memory and failed devices in the block to searchae's own.

    Args:
        doing: What the block does; the message begins with it.

    Raises:
        OutOfMemoryError: The device's or the machine's memory is full.
        DeviceError: The device failed.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as e:
        raise _out_of_memory(doing, e) from e
    except RuntimeError as e:
        text = str(e)
        if any(sign in text for sign in _OUT_OF_MEMORY):
            raise _out_of_memory(doing, e) from e
        failed = any(sign in text for sign in _DEVICE_FAILED)
        if not failed or any(sign in text for sign in _PROGRAM_ERROR):
            raise
        raise DeviceError(f"{doing}: the device failed ({_first_line(e)})") from e


def _out_of_memory(doing: str, error: BaseException) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"{doing}: out of memory ({_first_line(error)}): lower train.batch_size or the model's "
        "widths, or run fewer workers on the device"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no details"])[0]
