"""Locks between all processes that use a database, on any machine."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from searchae.errors import StorageError
from searchae.storage.url import is_sqlite, masked_url

IDLE_S = 30
"""Seconds after which PostgreSQL takes a lock from a process that does nothing with it."""


@contextmanager
def exclusive_lock(
    engine: Engine, key: int, *, idle_s: int = IDLE_S
) -> Iterator[Callable[[], None]]:
    """Holds a lock that only one process at a time can hold.

    On PostgreSQL it is an advisory lock in a transaction of its own, which the server ends when
    the process dies or loses its connection; on SQLite a lock on the file ``DATABASE.lock``.

    Args:
        engine: The engine of the database; on PostgreSQL one of its connections is in use
            meanwhile.
        key: What is locked, such as a study's id. On SQLite there is one lock for all keys.
        idle_s: See ``IDLE_S``; what is done meanwhile on other connections counts as nothing.

    Yields:
        A function that raises a database error if the lock has been lost.
    """
    if is_sqlite(engine.url):
        with file_lock(engine.url):
            yield lambda: None
        return
    with locked_transaction(engine, key, idle_s=idle_s) as connection:
        yield lambda: connection.execute(sa.text("SELECT 1")).close()


@contextmanager
def locked_transaction(
    engine: Engine, key: int, *, idle_s: int = IDLE_S
) -> Iterator[sa.Connection]:
    """Holds the same lock together with a transaction, which is committed when it is released.

    Args:
        engine: The engine of the database.
        key: What is locked, such as a study's id.
        idle_s: See ``IDLE_S``.

    Yields:
        The connection with the transaction; on SQLite no other connection can write meanwhile.
    """
    if is_sqlite(engine.url):
        with file_lock(engine.url), engine.begin() as connection:
            yield connection
        return
    with engine.begin() as connection:
        connection.execute(_ADVISORY_LOCK, {"key": key, "idle": f"{idle_s}s"})
        yield connection


# These settings are local to the transaction, also behind a connection pooler.
_ADVISORY_LOCK = sa.text(
    "SELECT set_config('idle_in_transaction_session_timeout', :idle, true), "
    "set_config('lock_timeout', '60s', true), pg_advisory_xact_lock(727, :key)"
)


@contextmanager
def file_lock(url: URL) -> Iterator[None]:
    """Holds an exclusive lock on the file ``DATABASE.lock`` beside a SQLite database.

    Whoever may write the database may hold it, whoever made the file.
    """
    database = Path(str(url.database))
    path = Path(f"{database}.lock")
    try:
        descriptor = _open_lock_file(path, database)
    except OSError as e:
        raise StorageError(
            f"{masked_url(url)}: {path} cannot be written: {e.strerror or e}"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock_file(path: Path, database: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        try:
            return os.open(path, flags | os.O_RDWR)
        except PermissionError:  # earlier versions left it to the umask: it can still be locked
            return os.open(path, flags | os.O_RDONLY)
    # As SQLite does with its own further files.
    with suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(database.stat().st_mode))
    return descriptor
