"""Opens the database and the study that a command names."""

from __future__ import annotations

import logging
import os
import select
import shlex
import stat
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from searchae.cli.terminal import print_line

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from searchae.storage import ResilientStorage
    from searchae.study import StoredStudy

log = logging.getLogger(__name__)

_SECRETS = "/run/secrets/"
"""Where container engines put secrets, readable for every user of the container."""
SILENT_S = 1.0
"""Seconds without a word while a pipe gives no password."""
AWAIT_S = 2.0
"""Seconds between two attempts to open a study that does not exist yet."""
STOP_RETRIES = 8
"""Seconds for which a worker that was stopped waits for the database to put its trial back."""


def storage_url(text: str, *, create: bool = False) -> URL:
    """Parses the value of ``--storage``; for ``managed``, starts the server if it does not run.

    A PostgreSQL URL without a password gets the content of the file that the environment variable
    SEARCHAE_STORAGE_PASSWORD_FILE names.

    Args:
        text: The value.
        create: Whether to make a managed server's data if there are none.

    Raises:
        StorageError: It is not a URL of a supported database, or the file cannot be read.
    """
    from searchae.errors import StorageError
    from searchae.storage import is_sqlite, open_url

    url = open_url(
        text, create=create, note=lambda line: print_line(f"searchae: {line}", file=sys.stderr)
    )
    path = os.environ.get("SEARCHAE_STORAGE_PASSWORD_FILE")
    if not path or is_sqlite(url):
        return url
    try:
        about = Path(path).stat()
        text = _piped(path) if stat.S_ISFIFO(about.st_mode) else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror or str(e) if isinstance(e, OSError) else "it is not UTF-8"
        raise StorageError(
            f"SEARCHAE_STORAGE_PASSWORD_FILE: {path} cannot be read: {why}"
        ) from None
    if stat.S_ISREG(about.st_mode) and about.st_mode & 0o044 and not path.startswith(_SECRETS):
        log.warning(
            "SEARCHAE_STORAGE_PASSWORD_FILE: others can read %s; type: chmod 600 %s",
            path,
            shlex.quote(path),
        )
    return url.set(password=text.rstrip("\n")) if url.password is None else url


def _piped(path: str) -> str:
    """Returns what comes from a pipe, such as that of ``<(pass show db)``.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is no text.
    """
    # Opened otherwise, a pipe without a writer would wait for one without a word.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, encoding="utf-8") as pipe:
        if not select.select([pipe], [], [], SILENT_S)[0]:
            print_line(f"searchae: waiting for the password from {path}, a pipe", file=sys.stderr)
            select.select([pipe], [], [])
        os.set_blocking(descriptor, True)
        return pipe.read()


def require_database(url: URL) -> None:
    """Checks that the database exists; connecting would create a SQLite file.

    Raises:
        NoStudyError: It does not exist.
    """
    from searchae.errors import NoStudyError
    from searchae.storage import database_exists, masked_url

    if not database_exists(url):
        raise NoStudyError(
            f"{masked_url(url)}: there is no database at {Path(str(url.database)).resolve()}. Type "
            "this in the folder where the search ran, or name the database with --storage; "
            "`searchae tune` makes one"
        )


def connect_to(
    url: URL, *, stop: threading.Event | None = None, writes: bool = True
) -> ResilientStorage:
    """Connects to a database; its calls wait for up to a minute during an outage.

    Args:
        url: The database.
        stop: If given, calls wait until it is set, and then long enough to put a trial back.
        writes: Whether the command has to write.

    Raises:
        StorageError: The database cannot be used.
    """
    from searchae.storage import Backoff, connect

    if stop is None:
        return connect(url, backoff=Backoff(limit_s=60), writes=writes)
    from searchae.training import Interrupted

    retries = iter(range(STOP_RETRIES))

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            if next(retries, None) is None:
                raise Interrupted(
                    "the database is away: if a trial was running, another worker gets it once its "
                    "lease has expired (search.grace_s)"
                )
            time.sleep(1)

    return connect(url, backoff=Backoff(sleep=sleep), patient=True)


def open_study(
    url: URL, study: str, *, stop: threading.Event | None = None, writes: bool = True
) -> StoredStudy:
    """Opens a study that must exist, without creating a SQLite file.

    Args:
        url: The database.
        study: The study's name.
        stop: See ``connect_to``.
        writes: See ``connect_to``.

    Raises:
        NoStudyError: The study or its database does not exist.
    """
    from searchae.study import load_study

    require_database(url)
    return load_study(connect_to(url, stop=stop, writes=writes), study)


def await_study(url: URL, study: str, *, stop: threading.Event) -> StoredStudy:
    """Opens a study, waiting until another process has created it.

    Args:
        url: The database.
        study: The study's name.
        stop: Ends the wait; see also ``connect_to``.

    Raises:
        Interrupted: ``stop`` was set before the study existed.
    """
    from searchae.errors import NoStudyError
    from searchae.training import Interrupted

    shown = False
    while not stop.is_set():
        try:
            return open_study(url, study, stop=stop)
        except NoStudyError as e:
            if not shown:
                print_line(f"searchae: waiting: {e}", file=sys.stderr)
            shown = True
            stop.wait(AWAIT_S)
    raise Interrupted("stopped before the study was there")
