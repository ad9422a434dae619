"""A database URL -> Optuna storage that outlives outages, and a lock for the whole fleet."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from searchae.errors import StorageError
from searchae.lean import LeanStorage
from searchae.retry import Backoff

log = logging.getLogger(__name__)

PING_AFTER_S = 1.0
IDLE_S = 10.0

_PERMANENT = (
    "disk is full",
    "readonly database",
    "no such table",
    "unable to open",
    "not a database",
    "does not exist",
    "malformed",
    "permission denied",
    "authentication failed",
    "no password supplied",
)
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


def parse_url(text: str) -> URL:
    """Reads a database URL; a bare ``postgresql://`` gets the driver that searchae comes with.

    Raises:
        StorageError: It is no URL, or names a database that searchae does not work with.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: its port is no number
        # Not chained: SQLAlchemy's message may hold the text, and with it a password.
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


def masked(url: URL | str) -> str:
    """The URL without its password, for people and logs."""
    if isinstance(url, str):
        url = parse_url(url)
    secret = {k: "***" for k in url.query if k in ("password", "passfile", "sslpassword")}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def is_transient(error: BaseException) -> bool:
    """Whether a database error may go away by itself: a restart, a lock, a broken connection."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PoolTimeoutError):
            return True
        if isinstance(cause, DBAPIError) and isinstance(
            cause, sa.exc.OperationalError | sa.exc.InterfaceError
        ):
            return not any(word in str(cause.orig).lower() for word in _PERMANENT)
        if isinstance(cause, DBAPIError) and cause.connection_invalidated:
            return True
        cause = cause.__cause__
    return False


class ResilientStorage(BaseStorage):
    """An Optuna storage whose every call is made again until the database is back.

    Optuna's own storage raises as soon as the database restarts. Each of its calls may be
    repeated: writes replace, ``create_new_trial`` leaves at most an orphan that the ledger
    reaps, and a state set twice is refused the second time, which ``worker`` looks into.
    """

    def __init__(self, backend: LeanStorage, engine: Engine, *, backoff: Backoff) -> None:
        self._backend = backend
        self.engine = engine
        self.backoff = backoff
        self._used_at = time.monotonic()

    def retried(self, function: Callable[[], Any]) -> Any:
        """Calls a function that is safe to repeat until the database answers."""
        self._used_at = time.monotonic()
        try:
            return self.backoff.call(function, again=is_transient, explain=reason)
        except (
            sa.exc.OperationalError,
            sa.exc.ProgrammingError,
            PoolTimeoutError,
            optuna.exceptions.StorageInternalError,
        ) as e:
            raise StorageError(f"{masked(self.engine.url)}: {reason(e)}") from e

    def working_on(self, trial: FrozenTrial) -> AbstractContextManager[None]:
        """While the block runs, this process alone writes to a trial: see ``lean``."""
        return self._backend.holding(trial)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Writes all that the block writes to the trial worked on in one transaction, at its end.

        Raises:
            optuna.exceptions.UpdateFinishedTrialError: The trial has ended meanwhile.
        """
        with self._backend.collecting() as write:
            yield
            self.retried(write)

    def rest(self) -> None:
        """Gives back connections that have been idle for a while: a server has few of them."""
        if not is_sqlite(self.engine.url) and time.monotonic() - self._used_at > IDLE_S:
            self.engine.dispose()  # those in use are closed when they are given back

    def __getstate__(self) -> dict[str, Any]:
        # An engine cannot travel; Optuna's storage makes its own again.
        return {"backend": self._backend, "backoff": self.backoff}

    def __setstate__(self, state: dict[str, Any]) -> None:
        engine = state["backend"]._backend.engine
        _listen(engine)
        self.__init__(state["backend"], engine, backoff=state["backoff"])  # type: ignore[misc]


def _retried_method(name: str) -> Callable[..., Any]:
    def method(self: ResilientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.retried(lambda: getattr(self._backend, name)(*args, **kwargs))

    method.__name__ = name
    method.__doc__ = getattr(BaseStorage, name).__doc__
    return method


for _name in [
    n for n in dir(BaseStorage) if not n.startswith("_") and n != "check_trial_is_updatable"
]:
    setattr(ResilientStorage, _name, _retried_method(_name))
ResilientStorage.__abstractmethods__ = frozenset()


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
        _check_file(url)
    backoff = backoff or Backoff()
    try:
        rdb = backoff.call(
            lambda: _open(url),
            again=lambda e: patient and is_transient(e),
            explain=lambda e: f"{masked(url)}: {reason(e)}",
        )
    except RuntimeError as e:
        raise StorageError(f"{masked(url)}: its tables were made by another Optuna: {e}") from e
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as e:
        raise StorageError(f"{masked(url)}: {reason(e)}") from None
    _listen(rdb.engine)
    # The abstract methods are filled in below the class, which mypy does not see.
    storage = ResilientStorage(  # type: ignore[abstract]
        LeanStorage(rdb), rdb.engine, backoff=backoff
    )
    # At the latest when the process ends: SQLite moves all from its -wal into the file then.
    weakref.finalize(storage, rdb.engine.dispose)
    return storage


def exists(url: URL | str) -> bool:
    """Whether a SQLite file is there; of other databases only connecting shows it."""
    url = parse_url(url) if isinstance(url, str) else url
    return not is_sqlite(url) or Path(str(url.database)).exists()


def _open(url: URL) -> RDBStorage:
    # Optuna formats the URL as a template: a brace in a password must be doubled.
    template = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    # Many workers may start at once on an empty database: one makes the tables.
    with _alone(url):
        try:
            return RDBStorage(template, engine_kwargs=_engine_arguments(url))
        except IntegrityError:
            # A program that knows nothing of our lock, Optuna's dashboard say, has just marked the
            # new tables with their version, which is done once.
            return RDBStorage(template, engine_kwargs=_engine_arguments(url))


@contextmanager
def exclusive(engine: Engine, key: int) -> Iterator[Callable[[], None]]:
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
        with _file_lock(engine.url):
            yield lambda: None
        return
    with locked(engine, key) as connection:
        yield lambda: connection.execute(sa.text("SELECT 1")).close()


@contextmanager
def locked(engine: Engine, key: int) -> Iterator[sa.Connection]:
    """The same lock with a transaction under it, committed as it is let go: all or nothing.

    Yields:
        The one connection that it takes; on SQLite no other may write meanwhile.
    """
    if is_sqlite(engine.url):
        with _file_lock(engine.url), engine.begin() as connection:
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


def _alone(url: URL) -> AbstractContextManager[object]:
    if is_sqlite(url):
        return _file_lock(url)
    return exclusive(sa.create_engine(url, poolclass=NullPool, **_CONNECT), 0)


@contextmanager
def _file_lock(url: URL) -> Iterator[None]:
    with open(f"{url.database}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _listen(engine: Engine) -> None:
    if is_sqlite(engine.url):
        _begin_immediate(engine)
    else:
        _ping_after_a_pause(engine)


def _ping_after_a_pause(engine: Engine) -> None:
    """Replaces a connection that died while nobody used it, without a ping for every call."""

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


def _begin_immediate(engine: Engine) -> None:
    """Makes each SQLite transaction take the write lock at its start.

    SQLite ignores SELECT ... FOR UPDATE: without this, two processes that read a trial's state
    and then write it would both succeed.
    """

    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()


_CONNECT: dict[str, Any] = {
    "connect_args": {
        "connect_timeout": 10,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "searchae",
        # A pooler that gives each transaction another connection knows no prepared statements.
        "prepare_threshold": None,
    }
}


def _engine_arguments(url: URL) -> dict[str, Any]:
    if is_sqlite(url):
        return {"connect_args": {"timeout": 60}}
    # The second one is for signs of life while the first is in use.
    return {"pool_size": 1, "max_overflow": 1, **_CONNECT}


def is_sqlite(url: URL | str) -> bool:
    """Whether a database is a file, which the processes of one machine can share."""
    url = parse_url(url) if isinstance(url, str) else url
    return url.get_backend_name() == "sqlite"


def _check_file(url: URL) -> None:
    """Says what is wrong with a SQLite file's folder, where SQLite would not."""
    folder = Path(str(url.database)).resolve().parent
    if not folder.is_dir():
        raise StorageError(f"{masked(url)}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise StorageError(f"{masked(url)}: the folder {folder} cannot be written")
    kind = _file_system(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        log.warning(
            "%s lies on a network file system (%s), where SQLite's locks do not hold; "
            "use PostgreSQL for several machines",
            masked(url),
            kind,
        )


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder lies on, as /proc/mounts names it."""
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


def reason(error: BaseException) -> str:
    """A database error in one line that holds no URL."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    text = str(getattr(cause, "orig", None) or cause or error)
    return " ".join(text.split())
