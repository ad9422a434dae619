"""The data folder: finding files, locking, and errors of the disk in a user's words."""

from __future__ import annotations

import errno
import fcntl
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from searchae.config import DataSpec, ProgressCallback
from searchae.errors import DataError
from searchae.formatting import format_list

logger = logging.getLogger(__name__)

_EXPLANATIONS = {
    errno.ENOSPC: "the disk is full; free some space, or choose another folder with --data-dir",
    errno.EDQUOT: "your disk quota is used up; free some space, or choose another --data-dir",
    errno.EACCES: "permission denied; make it accessible, or choose another folder with --data-dir",
    errno.EPERM: "not permitted; make it accessible, or choose another folder with --data-dir",
    errno.EROFS: "the disk is read-only; choose another folder with --data-dir",
    errno.ENOTDIR: "part of the path is a file, not a folder; choose another --data-dir",
    errno.EEXIST: "it is a file, not a folder; choose another --data-dir",
    errno.EISDIR: "it is a folder, not a file",
}
_TOO_LITTLE_WRITTEN = re.compile(r"\d+ requested and \d+ written")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_LOCKS_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def is_disk_error(error: BaseException) -> bool:
    """Whether an error comes from the local disk, not from a network or a file's contents."""
    return isinstance(error, OSError) and error.errno in _EXPLANATIONS


@contextmanager
def disk_errors(action: str, path: Path) -> Iterator[None]:
    """Converts an ``OSError`` in the block to a ``DataError``.

    Args:
        action: The beginning of the message, such as ``"cannot write to"``.
        path: The file or folder, which follows it.

    Raises:
        DataError: With the path, the reason and what to do.
    """
    try:
        yield
    except OSError as e:
        raise disk_fault(action, path, e) from e


def disk_fault(action: str, path: Path, error: OSError) -> DataError:
    """Makes the ``DataError`` that ``disk_errors`` raises for an ``OSError``.

    Args:
        action: See ``disk_errors``.
        path: See ``disk_errors``.
        error: The operating system's error.
    """
    # numpy's own error of a full disk has no number: "99 requested and 0 written"
    number = errno.ENOSPC if _TOO_LITTLE_WRITTEN.search(str(error)) else error.errno
    reason = _EXPLANATIONS.get(number or 0, error.strerror or str(error))
    return DataError(f"{action} {path}: {reason}")


def find_data_file(
    path: str,
    *,
    data_dir: Path,
    key: str,
    takes_folder: bool = True,
    study_folder: Path | None = None,
) -> Path:
    """Finds a file or folder that a study names.

    Args:
        path: An absolute path, or one relative to the current folder, else to ``data_dir``, else to
            ``study_folder``; a leading ``~`` is the home folder.
        data_dir: The data folder.
        key: The key in the study file that holds the path, for the message.
        takes_folder: Whether it may be a folder.
        study_folder: The folder of the study file, where it is known.

    Returns:
        The absolute path.

    Raises:
        DataError: Nothing is there, and the message names the places; or it is a pipe or a
            device, which cannot be read as often as workers need it; or its name is two lines.
    """
    if "\n" in path:  # it would stand in the lines of messages, logs and batch scripts
        raise DataError(f"{key}: {path!r} holds a newline: rename the file or folder")
    places = possible_places(path, data_dir, study_folder)
    for place in places:
        if place.is_dir() and not takes_folder:
            raise DataError(f'{key}: {place} is a folder; write name = "folder" for images in it')
        if place.is_file() or place.is_dir():
            return place
        if place.exists():
            raise DataError(f"{key}: {place} is a pipe or a device, not a regular file")
    if _URL.match(path):
        raise DataError(
            f"{key}: {path!r} is a URL: fetch it, and write the path of the file or folder"
        )
    tried = " nor at ".join(map(str, places))
    hint = (
        ""
        if Path(path).expanduser().is_absolute()
        else ". A relative path begins in the folder where the command is typed, in --data-dir "
        "(SEARCHAE_DATA_DIR) or beside the study file; an absolute one holds everywhere"
    )
    raise DataError(f"{key}: {path!r} was not found: nothing is at {tried}{hint}")


def possible_places(path: str, data_dir: Path, study_folder: Path | None) -> list[Path]:
    """Returns where a path may lead to, as absolute paths in the order of precedence."""
    given = Path(path).expanduser()
    roots = [Path.cwd(), data_dir, *([study_folder] if study_folder else [])]
    # An absolute path leads to the same place from everywhere.
    return list(dict.fromkeys((root / given).absolute() for root in roots))


def absolute_paths(
    spec: DataSpec,
    *,
    data_dir: Path,
    study_folder: Path | None = None,
    progress: ProgressCallback = lambda _: None,
) -> DataSpec:
    """Returns a source's spec with absolute paths, so that it is found from every folder.

    What lies in the data folder keeps its relative path: each machine may have another such folder.

    Args:
        spec: The source.
        data_dir: The data folder.
        study_folder: The folder of the study file, where it is known.
        progress: Told which one is taken where a relative path leads to several.

    Raises:
        DataError: A path was not found, or holds bytes that are no UTF-8, which no study can store.
    """
    found = {}
    for key in ("path", "test_path"):
        if (path := getattr(spec, key)) is not None:
            place = find_data_file(
                path, data_dir=data_dir, key=f"data.{key}", study_folder=study_folder
            )
            places = possible_places(path, data_dir, study_folder)
            others = [p for p in places if p.exists() and not p.samefile(place)]
            if others:
                progress(
                    f"data.{key}: {place} is taken; {path} is also at "
                    f"{format_list([str(p) for p in others])}"
                )
            found[key] = path if place == (data_dir / path).absolute() else str(place)
    for key, path in found.items():
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"data.{key}: {path!r} holds bytes that are no UTF-8, which a study cannot store: "
                "rename the folder or file"
            ) from None
    return spec.model_copy(update=found)


def moved_paths(spec: DataSpec, *, data_dir: Path) -> DataSpec:
    """Returns a study's source; what is missing here is looked for in the data folder.

    The files of ``/ann/photos/small`` may lie in ``photos/small`` or ``small`` of another
    machine's data folder. Callers have to check the images by their hash.
    """
    found = {}
    for key in ("path", "test_path"):
        given = Path(getattr(spec, key) or "")
        if given.is_absolute() and not given.exists():
            tails = (data_dir.joinpath(*given.parts[i:]) for i in range(1, len(given.parts)))
            if place := next((tail for tail in tails if tail.exists()), None):
                found[key] = str(place.absolute())
    return spec.model_copy(update=found)


@contextmanager
def exclusive_preparation(
    name: str, *, data_dir: Path, progress: ProgressCallback
) -> Iterator[bool]:
    """Holds an exclusive lock in the data folder during the block.

    Args:
        name: The lock's name; different names do not exclude each other.
        data_dir: The data folder; created if needed. A hidden lock file stays in it.
        progress: Called if another process holds the lock, before waiting for it.

    Yields:
        Whether the lock is held: false on a file system without locks, where callers have to rely
        on atomic writes.

    Raises:
        DataError: The folder cannot be created or written to.
    """
    with disk_errors("cannot write to the data folder", data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / f".{name}.lock").open("ab")
    with lock:
        with disk_errors("cannot lock", Path(lock.name)):
            held = _lock(lock, name=name, progress=progress)
        yield held


def _lock(lock: IO[bytes], *, name: str, progress: ProgressCallback) -> bool:
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"{name}: waiting for another process that prepares the same data")
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as e:
        if e.errno not in _LOCKS_UNSUPPORTED:
            raise
        logger.warning("%s: this file system has no locks (%s)", lock.name, e.strerror)
        return False
    return True
