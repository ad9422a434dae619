"""Memory pages, kept by the process that trains.

A training step takes and frees the same large blocks again and again. glibc gives such blocks back
to the kernel at once, which then has to clear each page anew: thousands of page faults a step.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_NEVER = 2**31 - 1
_AHEAD = 64 << 20

HUGE_PAGES_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""For the environment of a process that trains: larger pages, where the kernel has them."""


def configure_malloc() -> bool:
    """From now on this process keeps what it frees, for its own next allocation.

    Returns:
        Whether the C library took the advice: glibc does, others have no such calls.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    advice = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _AHEAD))
    return all(mallopt(option, value) for option, value in advice)
