"""Out of memory, in the many words of the allocators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from searchae.errors import OutOfMemoryError

_CPU_ALLOCATOR = ("DefaultCPUAllocator: can't allocate memory", "not enough memory")


@contextmanager
def memory_errors(doing: str) -> Iterator[None]:
    """Within it, running out of memory raises ``errors.OutOfMemoryError``.

    Args:
        doing: What goes on, for the message.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as e:
        raise _translated(doing, e) from e
    except RuntimeError as e:
        if not any(sign in str(e) for sign in _CPU_ALLOCATOR):
            raise
        raise _translated(doing, e) from e


def _translated(doing: str, error: BaseException) -> OutOfMemoryError:
    first = (str(error).splitlines() or ["no details"])[0]
    return OutOfMemoryError(
        f"{doing}: out of memory ({first}): lower train.batch_size or the model's widths, or run "
        "fewer workers on the device"
    )
