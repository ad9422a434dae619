"""An Optuna storage whose every call waits until the database is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from searchae.errors import StorageError
from searchae.storage.backoff import Backoff
from searchae.storage.batched import BatchedStorage
from searchae.storage.engine import listen
from searchae.storage.url import is_sqlite, masked_url

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

    def __init__(self, backend: BatchedStorage, engine: Engine, *, backoff: Backoff) -> None:
        self._backend = backend
        self.engine = engine
        self.backoff = backoff
        self._used_at = time.monotonic()

    def retried(self, function: Callable[[], Any]) -> Any:
        """Calls a function that is safe to repeat until the database answers."""
        self._used_at = time.monotonic()
        try:
            return self.backoff.call(function, again=is_transient, explain=database_error_text)
        except (
            sa.exc.OperationalError,
            sa.exc.ProgrammingError,
            PoolTimeoutError,
            optuna.exceptions.StorageInternalError,
        ) as e:
            raise StorageError(f"{masked_url(self.engine.url)}: {database_error_text(e)}") from e

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
        listen(engine)
        self.__init__(state["backend"], engine, backoff=state["backoff"])  # type: ignore[misc]


def _retried_method(name: str) -> Callable[..., Any]:
    def method(self: ResilientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.retried(lambda: getattr(self._backend, name)(*args, **kwargs))

    method.__name__ = name
    method.__doc__ = getattr(BaseStorage, name).__doc__
    return method


def database_error_text(error: BaseException) -> str:
    """A database error in one line that holds no URL."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    text = str(getattr(cause, "orig", None) or cause or error)
    return " ".join(text.split())


for _name in [
    n for n in dir(BaseStorage) if not n.startswith("_") and n != "check_trial_is_updatable"
]:
    setattr(ResilientStorage, _name, _retried_method(_name))
ResilientStorage.__abstractmethods__ = frozenset()
