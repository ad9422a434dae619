"""A database URL -> Optuna storage that outlives outages, and a lock for the whole fleet."""

from __future__ import annotations

import logging
import weakref
from contextlib import AbstractContextManager

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from searchae.errors import StorageError
from searchae.storage.backoff import Backoff
from searchae.storage.batched import BatchedStorage
from searchae.storage.engine import CONNECT, engine_arguments, listen
from searchae.storage.locks import exclusive_lock, file_lock
from searchae.storage.resilient import ResilientStorage, database_error_text, is_transient
from searchae.storage.url import check_file, is_sqlite, masked_url, parse_url

log = logging.getLogger(__name__)


def connect(
    url: URL | str, *, backoff: Backoff | None = None, patient: bool = False
) -> ResilientStorage:
    """Opens the database; makes Optuna's tables in a new one.

    Args:
        url: ``sqlite:///file`` or ``postgresql://...``.
        backoff: How calls wait for the database.
        patient: Let the first connection wait as well, as a worker should that is started while
            the database restarts. A wrong password is told at once all the same.

    Raises:
        StorageError: It cannot be reached, refuses the login, or has another schema.
    """
    url = parse_url(url) if isinstance(url, str) else url
    if is_sqlite(url):
        check_file(url)
    backoff = backoff or Backoff()
    try:
        rdb = backoff.call(
            lambda: _open(url),
            again=lambda e: patient and is_transient(e),
            explain=lambda e: f"{masked_url(url)}: {database_error_text(e)}",
        )
    except RuntimeError as e:
        raise StorageError(f"{masked_url(url)}: its tables were made by another Optuna: {e}") from e
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as e:
        raise StorageError(f"{masked_url(url)}: {database_error_text(e)}") from None
    listen(rdb.engine)
    # The abstract methods are filled in below the class, which mypy does not see.
    storage = ResilientStorage(  # type: ignore[abstract]
        BatchedStorage(rdb), rdb.engine, backoff=backoff
    )
    # At the latest when the process ends: SQLite moves all from its -wal into the file then.
    weakref.finalize(storage, rdb.engine.dispose)
    return storage


def _open(url: URL) -> RDBStorage:
    # Optuna formats the URL as a template: a brace in a password must be doubled.
    template = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    # Many workers may start at once on an empty database: one makes the tables.
    with _alone(url):
        try:
            return RDBStorage(template, engine_kwargs=engine_arguments(url))
        except IntegrityError:
            # A program that knows nothing of our lock, Optuna's dashboard say, has just marked the
            # new tables with their version, which is done once.
            return RDBStorage(template, engine_kwargs=engine_arguments(url))


def _alone(url: URL) -> AbstractContextManager[object]:
    if is_sqlite(url):
        return file_lock(url)
    return exclusive_lock(sa.create_engine(url, poolclass=NullPool, **CONNECT), 0)
