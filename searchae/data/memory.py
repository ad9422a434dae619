"""How much memory a data set may take on this machine, checked before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from searchae.errors import DataError

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_GIB = 2**30
_LARGE_BYTES = _GIB // 4
_MAX_EXPANSION = 300


def memory_bytes() -> int:
    """Returns the memory that this process may use: the machine's, or its container's if less."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:  # not in a container with that kind of limit
            continue
        if text.isdigit():
            found.append(int(text))
    return min(found)


def require_memory(needed_bytes: int, *, what: str) -> None:
    """Refuses what takes more than half of the memory, since splitting images copies them.

    Args:
        needed_bytes: What would be allocated.
        what: What takes it; the message begins with it.

    Raises:
        DataError: It is too much.
    """
    available = memory_bytes()
    if needed_bytes > available / 2:
        raise DataError(
            f"{what}: takes {_gib(needed_bytes)} of memory, and this machine has "
            f"{_gib(available)}, half of which images may take: use fewer or smaller images"
        )


def require_plausible_expansion(expanded_bytes: int, stored_bytes: int, *, what: str) -> None:
    """Refuses compressed data that expands as no images do.

    Args:
        expanded_bytes: Its size when decompressed.
        stored_bytes: Its size in the file.
        what: What it is; the message begins with it.

    Raises:
        DataError: It is larger than 256 MiB and more than 300 times as large as in the file.
    """
    if expanded_bytes > max(_LARGE_BYTES, _MAX_EXPANSION * stored_bytes):
        raise DataError(
            f"{what}: {stored_bytes:,} bytes expand to {_gib(expanded_bytes)} or more, as no "
            "images do: it is not read; if it is right, save it without compression"
        )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:,.1f} GiB"
