"""Downloads of published data sets: complete or not at all, by one process at a time, verified."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from searchae.config import ProgressCallback
from searchae.data.disk import disk_errors, disk_fault, exclusive_preparation, is_disk_error
from searchae.errors import DataError

_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Download:
    """A published data set and how to download it.

    Attributes:
        name: As in a study file.
        home: Address of its public page.
        size_mb: Size of a full download in MB (10^6 bytes).
        files: The files that it consists of, relative to the data folder.
        by_hand: The files that a user without a network has to put into the data folder.
        run: Downloads; called with an empty folder, the data folder and the missing files, which it
            must leave in the empty folder under the same relative paths.
        gzipped: Whether ``NAME.gz`` may stand in for ``NAME``.
    """

    name: str
    home: str
    size_mb: int
    files: tuple[str, ...]
    by_hand: tuple[str, ...]
    run: Callable[[Path, Path, tuple[str, ...]], None]
    gzipped: bool = False

    def missing(self, data_dir: Path) -> tuple[str, ...]:
        """Returns the files that are not in the data folder."""
        suffixes = ("", ".gz") if self.gzipped else ("",)
        return tuple(
            f for f in self.files if not any((data_dir / f"{f}{s}").is_file() for s in suffixes)
        )


def fetch(download: Download, *, data_dir: Path, progress: ProgressCallback) -> None:
    """Downloads the missing files of a data set, if any.

    Files are downloaded to a temporary folder and moved when all are complete, so that a broken
    connection or a second process never leaves an incomplete file under its name.

    Args:
        download: The data set.
        data_dir: The data folder.
        progress: Called before a download starts.

    Raises:
        DataError: The download failed, the disk is full, or the folder cannot be written to.
    """
    if not download.missing(data_dir):
        return
    with exclusive_preparation(download.name, data_dir=data_dir, progress=progress) as alone:
        missing = download.missing(data_dir)
        if not missing:
            return
        with _staging(download.name, data_dir, sweep=alone) as staging:
            _run(download, missing, staging=staging, data_dir=data_dir, progress=progress)
            with disk_errors("cannot write to the data folder", data_dir):
                _install(staging, data_dir)
        left = download.missing(data_dir)
        if left:
            raise DataError(f"{download.name}: what was fetched lacks {_listed(left)}")


def _run(
    download: Download,
    missing: tuple[str, ...],
    *,
    staging: Path,
    data_dir: Path,
    progress: ProgressCallback,
) -> None:
    if all((data_dir / f).is_file() for f in download.by_hand):
        progress(f"{download.name}: unpacking")
    else:
        progress(
            f"{download.name}: fetching {_listed(missing)} into {data_dir} "
            f"(up to {download.size_mb} MB) from {download.home}"
        )
    try:
        with _socket_timeout():
            download.run(staging, data_dir, missing)
    except (OSError, RuntimeError, HTTPException) as e:
        if isinstance(e, OSError) and is_disk_error(e):
            raise disk_fault("cannot write to the data folder", data_dir, e) from e
        raise DataError(*_download_failed(download, missing, data_dir=data_dir, error=e)) from e


def _download_failed(
    download: Download, missing: tuple[str, ...], *, data_dir: Path, error: Exception
) -> list[str]:
    """Returns the message, line by line."""
    reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
    return [
        f"{download.name}: could not fetch {_listed(missing)}: {reason}",
        f"Try again, or get the files from {download.home} on a machine with a network and put "
        "them here:",
        *(f"  {data_dir / f}" for f in download.by_hand),
        "A study that needs no network: --study quickstart",
    ]


def _listed(names: tuple[str, ...]) -> str:
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + rest


@contextmanager
def _staging(name: str, data_dir: Path, *, sweep: bool) -> Iterator[Path]:
    """Yields a temporary folder on the data folder's disk.

    Args:
        name: The data set's name.
        data_dir: The data folder.
        sweep: Whether to remove those of killed processes first, which needs the lock.
    """
    prefix, suffix = f".{name}-", ".part"
    if sweep:
        for stale in data_dir.glob(f"{prefix}*{suffix}"):
            shutil.rmtree(stale, ignore_errors=True)
    with disk_errors("cannot write to the data folder", data_dir):
        staging = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=data_dir))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _install(staging: Path, data_dir: Path) -> None:
    """Moves files into place, except archives and files that exist there already."""
    for file in sorted(staging.rglob("*")):
        target = data_dir / file.relative_to(staging)
        if file.is_file() and file.suffix != ".gz" and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


@contextmanager
def _socket_timeout() -> Iterator[None]:
    """Sets a timeout for the block's connections; torchvision sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def check_published(checksums: Mapping[Path, str], *, home: str) -> None:
    """Compares files with their published checksums.

    Args:
        checksums: File -> MD5 in hexadecimal.
        home: Address of the data set's page, for the message.

    Raises:
        DataError: A file differs or cannot be read.
    """
    from torchvision.datasets.utils import check_integrity

    for path, md5 in checksums.items():
        with disk_errors("cannot read", path):
            matches = check_integrity(path, md5)
        if not matches:
            raise not_published(path, home=home)


def require_torchvision() -> None:
    """Checks that torchvision can be imported, before a data set needs it.

    Raises:
        DataError: It is missing, or does not fit the torch that is installed.
    """
    try:
        import torchvision.datasets  # noqa: F401
    except (ImportError, RuntimeError, OSError) as e:  # RuntimeError: built for another torch
        raise DataError(
            f"torchvision cannot be imported: {type(e).__name__}: {e}",
            "svhn, mnist and cifar10 are fetched through it: install the torchvision that fits "
            "your torch. The sources house-numbers, folder, npz and csv do not need it",
        ) from e


def damaged(path: Path, found: object) -> DataError:
    """Makes the error for a file with invalid content; ``found`` says what was found."""
    size = f" ({path.stat().st_size:,} bytes)" if path.is_file() else ""
    return DataError(f"{path}{size} is damaged: {found}; delete it and run again")


def not_published(path: Path, *, home: str) -> DataError:
    """Makes the error for a file whose checksum is not the published one."""
    size = f"{path.stat().st_size:,} bytes" if path.is_file() else "not a file"
    return DataError(
        f"{path} ({size}) is damaged or another file: its checksum is not that of the file from "
        f"{home}; delete it and run again (images of your own: sources npz, csv, folder)"
    )
