"""How connections to a database are made and kept alive."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

from searchae.errors import StorageError
from searchae.storage.url import is_sqlite, masked_url

PING_AFTER_S = 1.0
"""A connection that was unused for longer is tested before it is used again."""


BUSY_MS = 5000
"""How long one call waits for another process's write to a SQLite file, in milliseconds. Calls are
repeated; meanwhile a signal is not seen."""

READS = "searchae_reads"
"""Execution option of an engine or a connection whose transactions write nothing."""


def register_listeners(engine: Engine) -> None:
    """Registers the event listeners that an engine's connections need."""
    if is_sqlite(engine.url):
        _watch_file(engine)
        _begin_immediate(engine)
    else:
        _ping_after_pause(engine)


def _ping_after_pause(engine: Engine) -> None:
    """Replaces a connection that died while it was unused, without a ping for every call."""

    def on_checkin(_connection: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    def on_checkout(connection: Any, record: Any, _proxy: object) -> None:
        if time.monotonic() - record.info.get("used_at", math.inf) < PING_AFTER_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as e:
            raise sa.exc.DisconnectionError(str(e)) from e

    sa.event.listen(engine, "checkin", on_checkin)
    sa.event.listen(engine, "checkout", on_checkout)


def _watch_file(engine: Engine) -> None:
    """Raises an error at the start of a transaction once the SQLite file is another one.

    Open connections would go on writing to a file that has been removed, and a new one would create
    an empty file.
    """
    path = Path(str(engine.url.database))
    file = _file_identity(path)

    def check(*_: object) -> None:
        if _file_identity(path) != file:
            raise StorageError(
                f"{masked_url(engine.url)}: the file was removed, moved or replaced while it was "
                "in use; put it back or remove what is there now, and run the same command again"
            )

    sa.event.listen(engine, "begin", check)
    sa.event.listen(engine, "do_connect", check)


def _file_identity(path: Path) -> tuple[int, int] | None:
    """Returns what distinguishes a file from another one of the same name; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _begin_immediate(engine: Engine) -> None:
    """Makes each SQLite transaction take the write lock at its start, unless it only reads.

    SQLite ignores SELECT ... FOR UPDATE: otherwise two processes that read a trial's state and
    then write it would both succeed. One that reads only (``READS``) neither waits for writers nor
    holds them up.
    """

    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        if isinstance(connection, ReadOnlyConnection):
            return
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def on_begin(connection: sa.Connection) -> None:
        is_read = connection.get_execution_options().get(READS, False) or isinstance(
            connection.connection.dbapi_connection, ReadOnlyConnection
        )
        connection.exec_driver_sql("BEGIN" if is_read else "BEGIN IMMEDIATE")

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    engine.dispose()


POSTGRESQL_ARGUMENTS: dict[str, Any] = {
    "connect_args": {
        "connect_timeout": 10,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "searchae",
        # Prepared statements fail behind a pooler that gives each transaction another connection.
        "prepare_threshold": None,
    }
}


class ReadOnlyConnection(sqlite3.Connection):
    """A connection to a SQLite file that this user may not write."""


def _connect_to_read(database: str) -> ReadOnlyConnection:
    """Opens a SQLite file without writing anything into its folder.

    A file in WAL mode has a file ``-shm`` beside it while it is open for writing. Without one,
    SQLite would have to make it, unless it is told that nobody writes.
    """
    path = os.path.abspath(database)
    options = "mode=ro" if os.path.exists(f"{path}-shm") else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"file:{quote(path)}?{options}",
        uri=True,
        timeout=60,
        check_same_thread=False,
        factory=ReadOnlyConnection,
    )


def engine_arguments(url: URL, *, writes: bool = True) -> dict[str, Any]:
    """Returns the keyword arguments of ``sqlalchemy.create_engine`` for a database.

    Args:
        url: The database.
        writes: Whether it is to be written, where it is a file.
    """
    if is_sqlite(url) and not writes:
        # Each connection looks anew whether somebody writes; see ``_connect_to_read``.
        return {"creator": partial(_connect_to_read, str(url.database)), "poolclass": NullPool}
    if is_sqlite(url):
        return {"connect_args": {"timeout": 60}}
    # The second connection is for heartbeats while the first is in use.
    return {"pool_size": 1, "max_overflow": 1, **POSTGRESQL_ARGUMENTS}
