"""Reads and writes of one statement each, on the engine of Optuna's storage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from searchae.storage.frozen_trials import parse_distribution
from searchae.storage.statements import trial_ids_of_study, upsert_if_unfinished
from searchae.storage.tables import params, studies, study_attributes, trials

NOT_FOUND = "Record does not exist."
"""The message of each KeyError, as in Optuna."""


class Queries:
    """Statements on the database of an Optuna storage.

    Every method raises ``optuna.exceptions.StorageInternalError`` for an error of the database.

    Args:
        rdb: Optuna's storage, whose engine is used.
    """

    def __init__(self, rdb: RDBStorage) -> None:
        self._rdb = rdb

    def __getstate__(self) -> dict[str, Any]:
        return {"_rdb": self._rdb}  # an engine cannot be pickled

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """Opens a connection that commits each statement by itself, which saves BEGIN and COMMIT.

        On SQLite, where these cost nothing, it is a transaction.
        """
        with self._connection(self._autocommit) as connection:
            yield connection

    def study_of(self, trial_id: int) -> int:
        """Returns the id of a trial's study.

        Raises:
            KeyError: There is no such trial.
        """
        return int(self._trial_column(trial_id, trials.c.study_id))

    def state_of(self, trial_id: int) -> TrialState:
        """Returns a trial's state.

        Raises:
            KeyError: There is no such trial.
        """
        state: TrialState = self._trial_column(trial_id, trials.c.state)
        return state

    def user_attributes_of_study(self, study_id: int) -> dict[str, Any]:
        """Returns a study's user attributes.

        Raises:
            KeyError: There is no such study.
        """
        on = study_attributes.c.study_id == studies.c.study_id
        query = (
            sa.select(study_attributes.c.key, study_attributes.c.value_json)
            .select_from(studies.outerjoin(study_attributes, on))
            .where(studies.c.study_id == study_id)
        )
        with self.connect() as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise KeyError(NOT_FOUND)
        return {key: json.loads(value) for key, value in rows if key is not None}

    def distribution_of(self, study_id: int, name: str) -> BaseDistribution | None:
        """Returns the distribution of a parameter in any trial of a study that has it."""
        query = (
            sa.select(params.c.distribution_json)
            .where(params.c.trial_id.in_(trial_ids_of_study(study_id)), params.c.param_name == name)
            .limit(1)
        )
        with self.connect() as connection:
            stored = connection.execute(query).scalar_one_or_none()
        return None if stored is None else parse_distribution(stored)

    def write(self, table: sa.Table, key: str, row: Mapping[str, Any]) -> bool:
        """Writes one row about a trial: see ``statements.upsert_if_unfinished``.

        Returns:
            Whether it was written; not if the trial has finished.
        """
        with self.connect() as connection:
            statement = upsert_if_unfinished(connection.dialect.name, table, key)
            return bool(connection.execute(statement, row).rowcount)

    def write_together(
        self, rows: Mapping[tuple[sa.Table, str], Sequence[Mapping[str, Any]]]
    ) -> bool:
        """Writes rows about a trial in one transaction.

        Args:
            rows: (table, key) as in ``write`` -> rows.

        Returns:
            Whether all rows were written.
        """
        written = 0
        with self._connection(self._rdb.engine) as connection:
            for (table, key), some in rows.items():
                statement = upsert_if_unfinished(connection.dialect.name, table, key)
                written += connection.execute(statement, some).rowcount
        return written >= sum(map(len, rows.values()))

    def _trial_column(self, trial_id: int, column: sa.Column[Any]) -> Any:
        query = sa.select(column).where(trials.c.trial_id == trial_id)
        with self.connect() as connection:
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise KeyError(NOT_FOUND)
        return found

    @contextmanager
    def _connection(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as e:
            raise StorageInternalError(f"{type(e).__name__} in a statement of searchae's") from e

    @cached_property
    def _autocommit(self) -> sa.Engine:
        engine = self._rdb.engine
        if engine.dialect.name == "sqlite":
            return engine
        return engine.execution_options(isolation_level="AUTOCOMMIT")
