"""Opens the database and the study that a command names."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from searchae.cli.terminal import print_line

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from searchae.storage import ResilientStorage
    from searchae.study import StoredStudy

AWAIT_S = 2.0
"""Seconds between two attempts to open a study that does not exist yet."""
STOP_RETRIES = 8
"""Seconds for which a worker that was stopped waits for the database to put its trial back."""


def storage_url(text: str, *, create: bool = False) -> URL:
    """Parses the value of ``--storage``; see ``searchae.storage.storage_url``."""
    from searchae import storage

    def note(line: str) -> None:
        print_line(f"searchae: {line}", file=sys.stderr)

    return storage.storage_url(text, note, create=create)


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
    from searchae.storage import require_database
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
