"""The data folder: finding files, one writer at a time, no half-written file, clear errors."""

from __future__ import annotations

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from searchae.config import ProgressCallback
from searchae.errors import DataError

logger = logging.getLogger(__name__)

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space, or choose another folder with --data-dir",
    errno.EDQUOT: "your disk quota is used up; free some space, or choose another --data-dir",
    errno.EACCES: "permission denied; make it accessible, or choose another folder with --data-dir",
    errno.EPERM: "not permitted; make it accessible, or choose another folder with --data-dir",
    errno.EROFS: "the disk is read-only; choose another folder with --data-dir",
    errno.ENOTDIR: "part of the path is a file, not a folder; choose another --data-dir",
    errno.EEXIST: "it is a file, not a folder; choose another --data-dir",
    errno.EISDIR: "it is a folder, not a file; move it away",
}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def is_disk_error(error: BaseException) -> bool:
    """Whether an error is about the local disk, not about a network or a file's contents."""
    return isinstance(error, OSError) and error.errno in _ADVICE


@contextmanager
def disk_errors(action: str, path: Path) -> Iterator[None]:
    """Turns an ``OSError`` of the block into a ``DataError``.

    Args:
        action: What was attempted, such as ``"cannot write to"``.
        path: What the sentence goes on with.

    Raises:
        DataError: With the path, the reason and what to do.
    """
    try:
        yield
    except OSError as e:
        raise disk_fault(action, path, e) from e


def disk_fault(action: str, path: Path, error: OSError) -> DataError:
    """The ``DataError`` that ``disk_errors`` raises for an ``OSError``."""
    reason = _ADVICE.get(error.errno or 0, error.strerror or str(error))
    return DataError(f"{action} {path}: {reason}")


def find_data_file(path: str, *, data_dir: Path, key: str) -> Path:
    """Finds a file or folder that a study names.

    Args:
        path: Absolute, or relative to the current folder or, if it is not there, to ``data_dir``;
            a leading ``~`` is the home folder.
        data_dir: The data folder.
        key: Where the path was given, for the error.

    Raises:
        DataError: It is in neither place; both are named.
    """
    given = Path(path).expanduser()
    places = [given] if given.is_absolute() else [Path.cwd() / given, data_dir / given]
    for place in places:
        if place.exists():
            return place
    tried = " nor at ".join(str(p.absolute()) for p in dict.fromkeys(places))
    hint = "" if given.is_absolute() else "; --data-dir or SEARCHAE_DATA_DIR says where it lies"
    raise DataError(f"{key}: {path!r} was not found: nothing is at {tried}{hint}")


@contextmanager
def exclusive_preparation(
    name: str, *, data_dir: Path, progress: ProgressCallback
) -> Iterator[bool]:
    """Lets one process (and one thread) at a time into the block, on this data folder.

    Args:
        name: Blocks of different names do not exclude each other.
        data_dir: Created where missing; a hidden lock file is left in it.
        progress: Told when there is somebody to wait for.

    Yields:
        Whether the lock is held; False on a file system without locks, where the caller must
        do with atomic writes.

    Raises:
        DataError: The folder cannot be created or written to.
    """
    with disk_errors("cannot write to the data folder", data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / f".{name}.lock").open("ab")
    with lock:
        with disk_errors("cannot lock", Path(lock.name)):
            held = _locked(lock, name=name, progress=progress)
        yield held


def _locked(lock: IO[bytes], *, name: str, progress: ProgressCallback) -> bool:
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"{name}: waiting for another process that prepares the same data")
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as e:
        if e.errno not in _NO_LOCKS:
            raise
        logger.warning("%s: this file system has no locks (%s)", lock.name, e.strerror)
        return False
    return True
