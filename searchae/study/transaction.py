"""A database transaction about one study."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.config import SearchSpec
from searchae.errors import NoStudyError
from searchae.storage import (
    UNFINISHED,
    exclusive_lock,
    studies,
    study_attributes,
    trials,
    upsert,
)
from searchae.study.attributes import DATA_HASH
from searchae.study.process_identity import ProcessIdentity

metadata = sa.MetaData()
"""The tables that searchae adds to Optuna's."""


def create_tables(engine: sa.Engine) -> None:
    """Creates the tables that searchae adds to Optuna's, unless they are there."""
    found = sa.inspect(engine).get_table_names()
    if set(metadata.tables) <= set(found):  # whoever only looks may have no right to write
        return
    with exclusive_lock(engine, 0):
        metadata.create_all(engine)


def database_time(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Returns the database's clock in seconds since 1970, for a statement on this connection."""
    if connection.dialect.name == "postgresql":
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
    return sa.literal(time.time(), sa.Double)


def deleted_message(name: str) -> str:
    """Returns what is said when the study that a process works on is no longer there."""
    return f"study {name!r}: the study was deleted or renamed meanwhile; the work on it has ended"


@dataclass(frozen=True)
class StudyTransaction:
    """An open transaction about one study; whoever opened it commits it.

    Attributes:
        connection: The connection that the transaction runs on.
        study_id: The study's id in the database.
        search: Supplies the grace period and the number of attempts per trial.
        identity: The process on whose behalf statements are run.
        name: The study's name.
        data_hash: The hash of its images.
    """

    connection: sa.Connection
    study_id: int
    search: SearchSpec
    identity: ProcessIdentity
    name: str
    data_hash: str

    @property
    def now(self) -> sa.ColumnElement[float]:
        """Seconds since 1970 by the database's clock, so that machines' clocks need not agree."""
        return database_time(self.connection)

    def read_attributes(self, *, lock_study: bool = False) -> tuple[dict[str, Any], float]:
        """Reads the study's user attributes and the clock in one statement.

        Args:
            lock_study: Also lock the study's row until the transaction ends, so that Optuna itself
                numbers no new trial meanwhile.

        Returns:
            The attributes by key, and the database's time in seconds since 1970.

        Raises:
            NoStudyError: The study has been deleted or renamed.
        """
        on = study_attributes.c.study_id == studies.c.study_id
        query = (
            sa.select(
                studies.c.study_name,
                study_attributes.c.key,
                study_attributes.c.value_json,
                self.now.label("now"),
            )
            .select_from(studies.outerjoin(study_attributes, on))
            .where(studies.c.study_id == self.study_id)
        )
        if lock_study:
            query = query.with_for_update(of=studies, key_share=True)
        rows = self.connection.execute(query).all()
        attributes = {row.key: json.loads(row.value_json) for row in rows if row.key is not None}
        # SQLite gives the id of a deleted study to the next new one.
        is_same = attributes.get(DATA_HASH) == self.data_hash
        if not rows or rows[0].study_name != self.name or not is_same:
            raise NoStudyError(deleted_message(self.name))
        return attributes, rows[0].now

    def set_attribute(self, key: str, value: Any) -> None:
        """Sets a user attribute of the study.

        Args:
            key: The attribute.
            value: A JSON value.
        """
        dialect = self.connection.dialect.name
        row = {"study_id": self.study_id, "key": key, "value_json": json.dumps(value)}
        self.connection.execute(upsert(dialect, study_attributes, ["study_id", "key"], row))

    def set_state(self, trial_id: int, state: TrialState, **times: Any) -> None:
        """Sets the state of a trial, unless it has ended since it was looked at."""
        self.connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id == trial_id, trials.c.state.in_(UNFINISHED))
            .values(state=state, **times)
        )

    def roll_back(self) -> None:
        """Undoes the transaction."""
        transaction = self.connection.get_transaction()
        if transaction is not None:
            transaction.rollback()
