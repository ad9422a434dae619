"""An Optuna storage whose every call waits until the database is back."""
# ruff: noqa: D102 (BaseStorage documents the overridden methods)

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from searchae.errors import StorageError
from searchae.files import Backoff
from searchae.storage import deletion
from searchae.storage.engine_settings import register_listeners
from searchae.storage.tables import studies
from searchae.storage.trial_batching import TrialBatching
from searchae.storage.url import is_sqlite, is_text, masked_url

P = ParamSpec("P")
T = TypeVar("T")

IDLE_S = 10.0
"""Connections that have been idle for longer are closed by ``dispose_idle_connections``."""

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


_ADVICE = {
    "file is not a database": "name another file, or move this one away",
    "unable to open database file": "make it and its folder readable and writable for yourself",
    "disk I/O error": "the disk is full or broken, or this is no place for a database",
    "disk is full": "free some space",
    "readonly database": "make the file and its folder writable for yourself",
    "malformed": "the file is damaged: take a copy, or try `sqlite3 FILE .recover`",
    "database is locked": "another program holds it: end that one, or use PostgreSQL",
    "no such table": "it was changed by another program: name another database",
    "no such column": "it was changed by another program: name another database",
    "authentication failed": "check the user and the password in the URL, or in the file that "
    "SEARCHAE_STORAGE_PASSWORD_FILE names",
    "no password supplied": "write it into the URL of SEARCHAE_STORAGE, or into a file that "
    "SEARCHAE_STORAGE_PASSWORD_FILE names",
    "role ": "check the user in the URL",
    'database "': "check the database's name in the URL, or create it with createdb",
    "could not translate host name": "check the host in the URL",
    "Connection refused": "check the host and the port in the URL, and whether the server runs",
    "permission denied": "let the server's administrator grant this user the right to it",
    "too many clients": "raise max_connections of the server, or run fewer workers",
    "connection slots": "raise max_connections of the server, or run fewer workers",
}
"""Parts of SQLite's and PostgreSQL's messages -> what may help; the first that fits counts."""

_WRONG_STATEMENT = "SQLITE_ERROR"
"""SQLite's error of a statement that does not fit the tables; others have names of their own."""

_READ_ONLY = "25006"
"""SQLSTATE of a write to a PostgreSQL that takes none, as for some seconds of a failover."""


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def is_transient(error: BaseException) -> bool:
    """Tells whether a database error may pass by itself: a restart, a lock, a lost connection."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PoolTimeoutError):
            return True
        if isinstance(cause, DBAPIError) and _sqlstate(cause) == _READ_ONLY:
            return True
        if isinstance(cause, DBAPIError) and isinstance(
            cause, sa.exc.OperationalError | sa.exc.InterfaceError
        ):
            if getattr(cause.orig, "sqlite_errorname", "") == _WRONG_STATEMENT:
                return False
            return not any(word in str(cause.orig).lower() for word in _PERMANENT)
        if isinstance(cause, DBAPIError) and cause.connection_invalidated:
            return True
        cause = cause.__cause__
    return False


def database_error_text(error: BaseException) -> str:
    """Returns a database error as one line without the URL."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    text = str(getattr(cause, "orig", None) or cause or error)
    text = " ".join(text.split())
    advice = next((advice for part, advice in _ADVICE.items() if part in text), "")
    return f"{text}; {advice}" if advice else text


class ResilientStorage(BaseStorage):
    """An Optuna storage that repeats each call until the database answers.

    Optuna's own storage raises as soon as the database restarts. Each of its calls may be
    repeated: writes replace, ``create_new_trial`` leaves at most a trial without a lease, which
    ``study.coordination`` puts back, and a state that is set twice is refused the second time.

    Args:
        backend: The storage that does the work.
        rdb: Optuna's storage under it, whose engine is used.
        batching: How ``backend`` saves statements for a worker's trial.
        backoff: How long calls wait.
    """

    def __init__(
        self, backend: BaseStorage, rdb: RDBStorage, *, batching: TrialBatching, backoff: Backoff
    ) -> None:
        self.backend = backend
        self.rdb = rdb
        self.batching = batching
        self.backoff = backoff
        self._used_at = time.monotonic()

    @property
    def engine(self) -> sa.Engine:
        """The engine of all connections."""
        return self.rdb.engine

    def retried(self, function: Callable[[], T]) -> T:
        """Calls a function that is safe to repeat until the database answers.

        Raises:
            StorageError: The error is a permanent one, or the database was away for too long.
        """
        self._used_at = time.monotonic()
        try:
            return self.backoff.call(function, again=is_transient, explain=database_error_text)
        except (
            sa.exc.InternalError,
            sa.exc.OperationalError,
            sa.exc.ProgrammingError,
            PoolTimeoutError,
            optuna.exceptions.StorageInternalError,
        ) as e:
            raise StorageError(f"{masked_url(self.engine.url)}: {database_error_text(e)}") from e
        except json.JSONDecodeError as e:
            raise StorageError(
                f"{masked_url(self.engine.url)}: a value that is stored there is not JSON ({e}): "
                "something other than searchae wrote it; delete that study, or repair it"
            ) from e

    def study_names(self) -> list[str]:
        """Returns the names of all studies, sorted, whatever is stored with them."""
        query = sa.select(studies.c.study_name)

        def read() -> list[str]:
            with self.engine.connect() as connection:
                return sorted(connection.scalars(query))

        return self.retried(read)

    def _retry(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.retried(lambda: method(*args, **kwargs))

    # -- for workers

    @contextmanager
    def exclusive_trial(self, trial_id: int) -> Iterator[FrozenTrial]:
        """Saves statements while this process alone writes to a trial.

        Meanwhile ``get_all_trials`` may return unfinished trials without their reports.

        Args:
            trial_id: The trial's id in the database.

        Yields:
            The trial as it is at the start of the block.
        """
        trial = self._retry(self.batching.read_trial, trial_id)
        with self.batching.exclusive_trial(trial):
            yield trial

    @contextmanager
    def batched_writes(self) -> Iterator[None]:
        """Writes what the block writes to the exclusive trial in one transaction at its end.

        Where Optuna's own storage is used, each value is written at once.

        Raises:
            optuna.exceptions.UpdateFinishedTrialError: The trial has finished meanwhile.
        """
        with self.batching.collect_writes() as write:
            yield
            self.retried(write)

    def dispose_idle_connections(self) -> None:
        """Closes connections that have been idle for a while: a server allows few of them."""
        if not is_sqlite(self.engine.url) and time.monotonic() - self._used_at > IDLE_S:
            self.engine.dispose()  # those in use are closed when they are returned to the pool

    # -- Optuna's interface: studies

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return self._retry(self.backend.create_new_study, directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self.get_study_name_from_id(study_id)  # raises KeyError if there is none
        self.retried(lambda: deletion.delete_study(self.engine, study_id))
        with suppress(KeyError):  # only what it remembers of the study is left to delete
            self._retry(self.backend.delete_study, study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._retry(self.backend.set_study_user_attr, study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._retry(self.backend.set_study_system_attr, study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        if not is_text(study_name):  # no database can hold such a name, nor be asked for it
            raise KeyError(study_name)
        return self._retry(self.backend.get_study_id_from_name, study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._retry(self.backend.get_study_name_from_id, study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._retry(self.backend.get_study_directions, study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._retry(self.backend.get_study_user_attrs, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._retry(self.backend.get_study_system_attrs, study_id)

    def get_all_studies(self) -> list[Any]:
        return self._retry(self.backend.get_all_studies)

    # -- Optuna's interface: trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._retry(self.backend.create_new_trial, study_id, template_trial)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        self._retry(
            self.backend.set_trial_param, trial_id, param_name, param_value_internal, distribution
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        return self._retry(self.backend.set_trial_state_values, trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._retry(self.backend.set_trial_intermediate_value, trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._retry(self.backend.set_trial_user_attr, trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._retry(self.backend.set_trial_system_attr, trial_id, key, value)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._retry(self.backend.get_trial, trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return self._retry(self.backend.get_all_trials, study_id, deepcopy, states)

    # -- Optuna's interface: methods with a default, which the backend answers more quickly

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._retry(
            self.backend.get_trial_id_from_study_id_trial_number, study_id, trial_number
        )

    # BaseStorage's get_best_trial is kept: Optuna 4.4's query fails on PostgreSQL under psycopg 3.

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return self._retry(self.backend.get_trial_system_attrs, trial_id)

    def remove_session(self) -> None:
        self._retry(self.backend.remove_session)

    # -- pickling

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_used_at"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # An engine cannot be pickled; Optuna's storage makes a new one.
        self.__dict__.update(state, _used_at=time.monotonic())
        register_listeners(self.engine)
