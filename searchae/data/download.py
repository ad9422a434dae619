"""Published data sets: fetched whole or not at all, by one process at a time, then checked."""

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
    """One published data set.

    Attributes:
        name: As in a study file.
        home: Address of its public page.
        size_mb: What a full download transfers, in 10^6 bytes.
        files: What must be there, relative to the data folder.
        by_hand: What a user without a network is to put there instead of a download.
        run: Called with an empty folder, the data folder and the missing files; leaves these in
            the empty folder, under the same relative paths.
        gzipped: ``NAME.gz`` will do in the place of ``NAME``.
    """

    name: str
    home: str
    size_mb: int
    files: tuple[str, ...]
    by_hand: tuple[str, ...]
    run: Callable[[Path, Path, tuple[str, ...]], None]
    gzipped: bool = False

    def missing(self, data_dir: Path) -> tuple[str, ...]:
        """The files that are not there."""
        suffixes = ("", ".gz") if self.gzipped else ("",)
        return tuple(
            f for f in self.files if not any((data_dir / f"{f}{s}").is_file() for s in suffixes)
        )


def fetch(download: Download, *, data_dir: Path, progress: ProgressCallback) -> None:
    """Fetches what is missing of a data set; does nothing where nothing is.

    Files arrive in a folder of their own and are moved when all are there, so that neither a
    broken connection nor a second process leaves half a file under its name.

    Raises:
        DataError: No network, a full disk, or a folder that cannot be written to.
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
        with _impatient():
            download.run(staging, data_dir, missing)
    except (OSError, RuntimeError, HTTPException) as e:
        if isinstance(e, OSError) and is_disk_error(e):
            raise disk_fault("cannot write to the data folder", data_dir, e) from e
        raise DataError(_offline(download, missing, data_dir=data_dir, error=e)) from e


def _offline(
    download: Download, missing: tuple[str, ...], *, data_dir: Path, error: Exception
) -> str:
    reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
    places = "\n".join(f"  {data_dir / f}" for f in download.by_hand)
    return (
        f"{download.name}: could not fetch {_listed(missing)}: {reason}\n"
        f"Try again, or get the files from {download.home} on a machine with a network and put "
        f"them here:\n{places}\n"
        "A study that needs no network: --study quickstart"
    )


def _listed(names: tuple[str, ...]) -> str:
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + rest


@contextmanager
def _staging(name: str, data_dir: Path, *, sweep: bool) -> Iterator[Path]:
    """An empty folder on the same disk; ``sweep`` removes those of killed processes first."""
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
    """Moves all but archives into place; what is there already stays."""
    for file in sorted(staging.rglob("*")):
        target = data_dir / file.relative_to(staging)
        if file.is_file() and file.suffix != ".gz" and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


@contextmanager
def _impatient() -> Iterator[None]:
    """Gives up on a server that is silent; torchvision sets no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def check_published(checksums: Mapping[Path, str], *, home: str) -> None:
    """Compares files with the checksums (MD5, hexadecimal) that they were published with.

    Raises:
        DataError: Naming the first file that differs.
    """
    from torchvision.datasets.utils import check_integrity

    for path, md5 in checksums.items():
        with disk_errors("cannot read", path):
            matches = check_integrity(path, md5)
        if not matches:
            raise not_published(path, home=home)


def damaged(path: Path, found: object) -> DataError:
    """A file that cannot be what its name says: ``found`` tells why."""
    size = f" ({path.stat().st_size:,} bytes)" if path.is_file() else ""
    return DataError(f"{path}{size} is damaged: {found}; delete it and run again")


def not_published(path: Path, *, home: str) -> DataError:
    """A file whose checksum is not the published one."""
    size = f"{path.stat().st_size:,} bytes" if path.is_file() else "not a file"
    return DataError(
        f"{path} ({size}) is damaged or another file: its checksum is not that of the file from "
        f"{home}; delete it and run again (images of your own: sources npz, csv, folder)"
    )
