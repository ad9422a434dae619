"""Configures the C library's malloc for training.

Every training step allocates and frees the same large blocks. By default glibc returns such blocks
to the kernel at once, which then has to clear each page again: thousands of page faults a step.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_NEVER_TRIM = 2**31 - 1
_TOP_PAD_BYTES = 64 << 20

HUGE_PAGES_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Environment variables of a process that trains: huge pages, where the kernel has them."""


def configure_malloc() -> bool:
    """Makes this process keep freed memory for its next allocations.

    Returns:
        Whether the settings were accepted; only glibc has them.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER_TRIM), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(option, value) for option, value in settings)
