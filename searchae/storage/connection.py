"""Opens a database: a URL -> an Optuna storage that survives outages of the database."""

from __future__ import annotations

import weakref
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from searchae.errors import StorageError
from searchae.files import Backoff
from searchae.storage import tables
from searchae.storage.engine_settings import (
    POSTGRESQL_ARGUMENTS,
    engine_arguments,
    register_listeners,
)
from searchae.storage.locks import exclusive_lock, file_lock
from searchae.storage.optuna_compatibility import failure_of, is_usable
from searchae.storage.resilient import ResilientStorage, database_error_text, is_transient
from searchae.storage.trial_batching import NoBatching, TrialBatching
from searchae.storage.url import check_file, is_sqlite, masked_url, parse_url

_TABLES_S = 300
"""Seconds to create the tables, on the slowest of machines."""


def connect(
    url: URL | str,
    *,
    backoff: Backoff | None = None,
    patient: bool = False,
    writes: bool = True,
) -> ResilientStorage:
    """Opens a database, and creates Optuna's tables in a new one.

    Args:
        url: ``sqlite:///file`` or ``postgresql://...``.
        backoff: How long calls wait for the database.
        patient: Whether the first connection waits for the database as well, as that of a worker
            should which is started during a restart. A wrong password is an error all the same.
        writes: Whether the caller has to write. Otherwise a SQLite file will do that this user can
            only read.

    Raises:
        StorageError: The database cannot be reached, refuses the login, or has another schema.
        UserError: ``SEARCHAE_OPTUNA`` is neither ``auto`` nor ``public``.
    """
    url = parse_url(url)
    can_write = check_file(url, writes=writes) if is_sqlite(url) else True
    backoff = backoff or Backoff()
    try:
        rdb = backoff.call(
            lambda: _open(url) if can_write else _open_to_read(url),
            again=lambda e: patient and is_transient(e),
            explain=lambda e: f"{masked_url(url)}: {database_error_text(e)}",
        )
        backend, batching = _choose_backend(rdb)
    except RuntimeError as e:
        raise StorageError(f"{masked_url(url)}: its tables were made by another Optuna: {e}") from e
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as e:
        raise StorageError(f"{masked_url(url)}: {database_error_text(e)}") from None
    register_listeners(rdb.engine)
    storage = ResilientStorage(backend, rdb, batching=batching, backoff=backoff)
    # At the latest when the process ends: SQLite moves all from its -wal into the file then.
    weakref.finalize(storage, rdb.engine.dispose)
    return storage


def preload_storage() -> None:
    """Imports what ``connect`` uses, so that a prestarted worker does so before it is needed."""
    failure_of(_check)


def _open(url: URL) -> RDBStorage:
    # Optuna formats the URL as a template: a brace in a password must be doubled.
    template = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    # Many workers may start at once on an empty database: one creates the tables.
    lock = (
        file_lock(url)
        if is_sqlite(url)
        else exclusive_lock(
            sa.create_engine(url, poolclass=NullPool, **POSTGRESQL_ARGUMENTS), 0, idle_s=_TABLES_S
        )
    )
    with lock:
        _require_own_tables(url, engine_arguments(url))
        try:
            return RDBStorage(template, engine_kwargs=engine_arguments(url))
        except (IntegrityError, OperationalError, ProgrammingError) as e:
            # A program without our lock (Optuna's dashboard, say) has just created the new tables
            # or stored their version, which is done once.
            if not isinstance(e, IntegrityError) and "already exists" not in str(e.orig):
                raise
            return RDBStorage(template, engine_kwargs=engine_arguments(url))


def _open_to_read(url: URL) -> RDBStorage:
    """Opens a SQLite file that this user may not write."""
    template = url.render_as_string().replace("{", "{{").replace("}", "}}")
    arguments = engine_arguments(url, writes=False)
    _require_own_tables(url, arguments)
    return RDBStorage(template, engine_kwargs=arguments, skip_table_creation=True)


def _require_own_tables(url: URL, arguments: dict[str, Any]) -> None:
    """Refuses a database that holds another program's tables, before anything is added to it.

    Raises:
        StorageError: There are some that collide with Optuna's, or in a SQLite file any.
    """
    engine = sa.create_engine(url, **arguments)
    try:
        foreign = tables.foreign_tables(engine)
    finally:
        engine.dispose()
    if foreign:
        what = "another file" if is_sqlite(url) else "another database or schema"
        raise StorageError(
            f"{masked_url(url)}: holds another program's tables ({foreign}); choose {what}"
        )


def _choose_backend(rdb: RDBStorage) -> tuple[BaseStorage, TrialBatching]:
    """Returns the batched storage, or Optuna's own where that does not fit.

    Raises:
        StorageError: The tables have another revision and lack columns that searchae uses.
    """
    revision, obstacle = rdb.get_head_version(), ""
    if revision != tables.SCHEMA:
        missing = tables.missing_columns(rdb.engine)
        if missing:
            raise StorageError(
                f"searchae works on Optuna's tables {tables.SCHEMA}, the installed Optuna has "
                f"{revision}, without {', '.join(missing)}; install another version of either"
            )
        obstacle = f"tables {revision} instead of {tables.SCHEMA}"
    if is_usable("batched storage", _check, instead="its own storage", obstacle=obstacle):
        from searchae.storage.batched_storage import BatchedStorage

        batched = BatchedStorage(rdb)
        return batched, batched
    cached = optuna.storages.get_storage(rdb)
    return cached, NoBatching(cached, rdb)


def _check() -> None:
    from searchae.storage.batched_storage import self_check

    self_check()
