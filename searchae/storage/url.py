"""Database URLs: parsing, masking, and a check of a SQLite file's folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from searchae.errors import StorageError

log = logging.getLogger(__name__)


_NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "lustre",
    "glusterfs",
    "ceph",
    "fuse.sshfs",
    "9p",
    "beegfs",
    "gpfs",
}


def parse_url(text: URL | str) -> URL:
    """Parses a database URL; a bare ``postgresql://`` gets the driver psycopg.

    Args:
        text: ``sqlite:///file`` or ``postgresql://...``; a parsed URL is returned as it is.

    Raises:
        StorageError: The text is not a URL, or names a database that searchae does not support.
    """
    if isinstance(text, URL):
        return text
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        # Not chained: SQLAlchemy's message may contain the text, and so a password.
        file = text if text.endswith(".db") and "@" not in text else "searchae.db"
        raise StorageError(
            f"--storage: not a database URL; write sqlite:///{file} or "
            "postgresql://user@host/database"
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise StorageError(
            f"--storage: {url.drivername} is not supported; use sqlite or postgresql"
        )
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise StorageError("--storage: workers cannot share an in-memory SQLite; give it a file")
    return url


def masked_url(url: URL | str) -> str:
    """Returns the URL without its passwords, for messages and logs."""
    url = parse_url(url)
    secret = {k: "***" for k in url.query if k in ("password", "passfile", "sslpassword")}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def database_exists(url: URL | str) -> bool:
    """Tells whether a SQLite file exists; for other databases, which it cannot tell, True."""
    url = parse_url(url)
    return not is_sqlite(url) or Path(str(url.database)).exists()


def is_sqlite(url: URL | str) -> bool:
    """Tells whether a database is a SQLite file, which only processes of one machine can share."""
    return parse_url(url).get_backend_name() == "sqlite"


def check_file(url: URL) -> None:
    """Checks the folder of a SQLite file; warns if it lies on a network file system.

    Raises:
        StorageError: The folder does not exist or cannot be written.
    """
    folder = Path(str(url.database)).resolve().parent
    if not folder.is_dir():
        raise StorageError(f"{masked_url(url)}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise StorageError(f"{masked_url(url)}: the folder {folder} cannot be written")
    kind = _file_system(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        log.warning(
            "%s lies on a network file system (%s), where SQLite's locks do not hold; "
            "use PostgreSQL for several machines",
            masked_url(url),
            kind,
        )


def _file_system(folder: Path) -> str:
    """Returns the type of a folder's file system as in /proc/mounts, or ``unknown``."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    parents = {str(folder), *map(str, folder.parents)}
    return max(
        ((m, kind) for m, kind in mounts if m in parents),
        default=("", "unknown"),
        key=lambda found: len(found[0]),
    )[1]
