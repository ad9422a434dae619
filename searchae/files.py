"""Atomic, durable file writes."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_NO_FOLDER_SYNC = frozenset(
    {errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file that replaces ``path`` when the block ends without an error.

    The content goes to a temporary file in the same folder, which is then renamed. Content and
    rename are flushed to the disk, so that after a crash or a power cut ``path`` is the old file
    or the complete new one.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        The temporary file, open for writing.

    Raises:
        OSError: The file cannot be created, written, renamed or flushed. The temporary file is
            removed, also where the block raises anything else.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flushes a folder's entries; without it a rename may be lost in a power cut.

    A folder that cannot be read and a file system that cannot flush one are no errors: the file
    is complete and in its place by then.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as e:
        if e.errno not in _NO_FOLDER_SYNC:
            raise


def remove_unfinished(path: Path) -> None:
    """Removes the temporary files that killed processes left of ``atomic_file(path)``.

    Call it only while no other process writes ``path``: it would lose its temporary file.
    """
    for stale in path.parent.glob(f".{path.name}.*.part"):
        stale.unlink(missing_ok=True)
