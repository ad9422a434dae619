"""Locks that one process of a fleet holds at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from searchae.storage.url import is_sqlite


@contextmanager
def exclusive_lock(engine: Engine, key: int) -> Iterator[Callable[[], None]]:
    """Holds a lock that one process in the fleet has at a time.

    On PostgreSQL an advisory lock, in a transaction of its own that the server ends when its
    holder is stopped or cut off; on SQLite a lock on the file ``DATABASE.lock``.

    Args:
        engine: One more connection of it is held meanwhile, on PostgreSQL.
        key: What is locked; a study's id, say.

    Yields:
        A function that raises a database error if the lock has been lost since.
    """
    if is_sqlite(engine.url):
        with file_lock(engine.url):
            yield lambda: None
        return
    with locked_transaction(engine, key) as connection:
        yield lambda: connection.execute(sa.text("SELECT 1")).close()


@contextmanager
def locked_transaction(engine: Engine, key: int) -> Iterator[sa.Connection]:
    """The same lock with a transaction under it, committed as it is let go: all or nothing.

    Yields:
        The one connection that it takes; on SQLite no other may write meanwhile.
    """
    if is_sqlite(engine.url):
        with file_lock(engine.url), engine.begin() as connection:
            yield connection
        return
    with engine.begin() as connection:
        connection.execute(_ADVISORY_LOCK, {"key": key})
        yield connection


# The settings end with the transaction, and so they do behind a pooler of connections.
_ADVISORY_LOCK = sa.text(
    "SELECT set_config('idle_in_transaction_session_timeout', '30s', true), "
    "set_config('lock_timeout', '60s', true), pg_advisory_xact_lock(727, :key)"
)


@contextmanager
def file_lock(url: URL) -> Iterator[None]:
    """Holds an exclusive lock on the file ``DATABASE.lock`` beside a SQLite database."""
    with open(f"{url.database}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
