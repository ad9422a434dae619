"""How a storage is told of the trial that a worker has to itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial

from searchae.storage.tables import trials


class TrialBatching(Protocol):
    """A storage's means to save statements while a worker has a trial to itself."""

    def read_trial(self, trial_id: int) -> FrozenTrial:
        """Reads the trial that a worker is about to work on."""
        ...

    def exclusive_trial(self, trial: FrozenTrial) -> AbstractContextManager[None]:
        """Declares that only this process writes to a trial while the block runs."""
        ...

    def collect_writes(self) -> AbstractContextManager[Callable[[], None]]:
        """Collects what the block writes to the exclusive trial.

        Yields:
            A function that writes all of it in one transaction.
        """
        ...


class NoBatching:
    """Saves no statements: each value is written at once by Optuna's own cached storage.

    Args:
        storage: Optuna's cached storage.
        rdb: The storage under it.
    """

    def __init__(self, storage: BaseStorage, rdb: RDBStorage) -> None:
        self._storage = storage
        self._rdb = rdb

    def read_trial(self, trial_id: int) -> FrozenTrial:
        """Reads a trial and makes it known to Optuna's cache.

        ``set_trial_param`` needs it there. It was created by one of searchae's own statements,
        not by ``create_new_trial``.
        """
        query = sa.select(trials.c.study_id).where(trials.c.trial_id == trial_id)
        with self._rdb.engine.begin() as connection:
            study_id = connection.scalar(query)
        if study_id is not None:
            self._storage.get_all_trials(study_id, deepcopy=False)
        return self._storage.get_trial(trial_id)

    @contextmanager
    def exclusive_trial(self, _trial: FrozenTrial) -> Iterator[None]:
        """Changes nothing."""
        yield

    @contextmanager
    def collect_writes(self) -> Iterator[Callable[[], None]]:
        """Collects nothing."""
        yield lambda: None
