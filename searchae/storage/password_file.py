"""The database that an option or a variable names, with the password from a file of its own."""

from __future__ import annotations

import logging
import os
import select
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import URL

from searchae.errors import StorageError
from searchae.storage.managed import open_url
from searchae.storage.url import is_sqlite

log = logging.getLogger(__name__)

SECRETS = "/run/secrets/"
"""Where container engines put secrets, readable for every user of the container."""
SILENT_S = 1.0
"""Seconds without a word while a pipe gives no password."""


def storage_url(
    text: str, note: Callable[[str], None] = log.warning, *, create: bool = False
) -> URL:
    """Parses the value of ``--storage``; for ``managed``, starts the server if it does not run.

    A PostgreSQL URL without a password gets the content of the file that the environment variable
    SEARCHAE_STORAGE_PASSWORD_FILE names.

    Args:
        text: See ``open_url``.
        note: Told that a pipe is waited for, or that a server is started.
        create: Whether to make a managed server's data if there are none.

    Raises:
        StorageError: It is not a URL of a supported database, or the file cannot be read.
        NoStudyError: There is no managed server's data, and they are not to be made.
        UserError: The managed server's package is not installed.
    """
    url = open_url(text, create=create, note=note)
    path = os.environ.get("SEARCHAE_STORAGE_PASSWORD_FILE")
    if not path or is_sqlite(url):
        return url
    try:
        about = Path(path).stat()
        text = _piped(path, note) if stat.S_ISFIFO(about.st_mode) else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror or str(e) if isinstance(e, OSError) else "it is not UTF-8"
        raise StorageError(
            f"SEARCHAE_STORAGE_PASSWORD_FILE: {path} cannot be read: {why}"
        ) from None
    if stat.S_ISREG(about.st_mode) and about.st_mode & 0o044 and not path.startswith(SECRETS):
        log.warning(
            "SEARCHAE_STORAGE_PASSWORD_FILE: others can read %s; type: chmod 600 %s",
            path,
            shlex.quote(path),
        )
    return url.set(password=text.rstrip("\n")) if url.password is None else url


def _piped(path: str, note: Callable[[str], None]) -> str:
    """Returns what comes from a pipe, such as that of ``<(pass show db)``.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is no text.
    """
    # Opened otherwise, a pipe without a writer would wait for one without a word.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, encoding="utf-8") as pipe:
        if not select.select([pipe], [], [], SILENT_S)[0]:
            note(f"waiting for the password from {path}, a pipe")
            select.select([pipe], [], [])
        os.set_blocking(descriptor, True)
        return pipe.read()
