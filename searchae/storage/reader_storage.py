"""Reads every trial of a large study within seconds.

Optuna builds an object for each row that it reads: half a million of them for 10,000 trials of 50
epochs. Here rows are read as tuples, by seven statements per study, and a finished trial is read
once.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from searchae.errors import StorageError
from searchae.storage.engine_settings import READS
from searchae.storage.frozen_trials import TrialContents, local_time
from searchae.storage.resilient import ResilientStorage
from searchae.storage.tables import (
    params,
    reports,
    studies,
    study_attributes,
    study_directions,
    study_system_attributes,
    system_attributes,
    trials,
    user_attributes,
    values,
)

T = TypeVar("T")

MAX_NAMED_TRIALS = 500
"""Most trials that a statement names; of more the whole study is read."""


class TrialReader:
    """Reads the trials of studies, and remembers the finished ones."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._finished: dict[int, dict[int, FrozenTrial]] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def trials(self, study_id: int) -> list[FrozenTrial]:
        """Reads what has changed.

        Args:
            study_id: The study's id in the database.

        Returns:
            Every trial, by number. Finished ones are shared by all callers: do not change them.

        Raises:
            KeyError: There is no such study.
        """
        # One thread reads, and the others wait for what it has read.
        with self._locks[study_id], self._engine.connect() as connection, connection.begin():
            # Before the rest: what belongs to a trial is complete once it is seen to be finished.
            heads = self._heads(connection, study_id)
            before = self._finished.get(study_id, {})
            kept = {i: t for i, t in before.items() if i in heads and _is_same(t, heads[i])}
            missing = {i: head for i, head in heads.items() if i not in kept}
            new = _read_trials(connection, study_id, missing)
            finished = {i: t for i, t in new.items() if t.state.is_finished()}
            self._finished[study_id] = kept | finished
            return sorted((kept | new).values(), key=lambda t: t.number)

    def _heads(self, connection: sa.Connection, study_id: int) -> dict[int, Any]:
        rows = connection.execute(
            sa.select(
                trials.c.trial_id,
                trials.c.number,
                _as_text(trials.c.state),
                trials.c.datetime_start,
                trials.c.datetime_complete,
            ).where(trials.c.study_id == study_id)
        ).all()
        if not rows and not _study_exists(connection, study_id):
            self._finished.pop(study_id, None)
            raise KeyError(study_id)
        return {row[0]: row for row in rows}


@dataclass(frozen=True)
class StudyRecord:
    """A study with the attributes of Optuna's ``FrozenStudy``, which is not public."""

    study_name: str
    directions: list[StudyDirection]
    user_attrs: dict[str, Any]
    system_attrs: dict[str, Any]
    _study_id: int

    @property
    def direction(self) -> StudyDirection:
        """The direction of a study with one objective.

        Raises:
            RuntimeError: The study has several objectives.
        """
        if len(self.directions) > 1:
            raise RuntimeError("the study has several objectives")
        return self.directions[0]


class ReaderStorage(ResilientStorage):
    """A storage with quick reads of whole studies, for a server that only displays trials.

    Args:
        storage: The storage whose connections are used.

    Attributes:
        outage: ``reason`` is set in the thread whose request found the database away.
    """

    def __init__(self, storage: ResilientStorage) -> None:
        super().__init__(
            storage.backend, storage.rdb, batching=storage.batching, backoff=storage.backoff
        )
        self._reads = storage.engine.execution_options(**{READS: True})
        self._reader = TrialReader(self._reads)
        self.outage = threading.local()

    def retried(self, function: Callable[[], T]) -> T:
        """Calls a function until the database answers, and notes an outage for this thread.

        Raises:
            StorageError: The database was away for too long.
        """
        try:
            return super().retried(function)
        except StorageError as e:
            self.outage.reason = str(e)
            raise

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Returns every trial by number, never as a copy."""
        del deepcopy  # nothing in the dashboard changes a trial
        found = self.retried(lambda: self._reader.trials(study_id))
        return [t for t in found if states is None or t.state in states]

    def trial_ids(self, study_id: int) -> dict[int, int]:
        """Returns the database id of each trial of a study, by trial number."""

        def read() -> dict[int, int]:
            statement = sa.select(trials.c.number, trials.c.trial_id)
            with self._reads.connect() as connection, connection.begin():
                rows = connection.execute(statement.where(trials.c.study_id == study_id)).all()
            return {row.number: row.trial_id for row in rows}

        ids: dict[int, int] = self.retried(read)
        return ids

    def get_all_studies(self) -> list[Any]:
        """Returns every study by id; one may have 20,000 attributes, if each trial has a note."""
        return self.retried(self._studies)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Returns a study's attributes, among them the notes on all its trials.

        Raises:
            KeyError: There is no such study.
        """
        return self.retried(lambda: self._system_attributes(study_id))

    def _studies(self) -> list[StudyRecord]:
        with self._reads.connect() as connection, connection.begin():
            names = connection.execute(
                sa.select(studies.c.study_id, studies.c.study_name).order_by(studies.c.study_id)
            ).all()
            directions: defaultdict[int, list[StudyDirection]] = defaultdict(list)
            for i, direction in connection.execute(
                sa.select(
                    study_directions.c.study_id, _as_text(study_directions.c.direction)
                ).order_by(study_directions.c.objective)
            ):
                directions[i].append(StudyDirection[direction])
            user_attrs = _attributes_of_studies(connection, study_attributes)
            system_attrs = _attributes_of_studies(connection, study_system_attributes)
        return [
            StudyRecord(name, directions[i], user_attrs[i], system_attrs[i], i)
            for i, name in names
            if i in directions  # otherwise the study is just being created
        ]

    def _system_attributes(self, study_id: int) -> dict[str, Any]:
        table = study_system_attributes
        query = sa.select(table.c.key, table.c.value_json).where(table.c.study_id == study_id)
        with self._reads.connect() as connection, connection.begin():
            rows = connection.execute(query).all()
            if not rows and not _study_exists(connection, study_id):
                raise KeyError(study_id)
        return {key: _value(text) for key, text in rows}


def _value(text: str) -> Any:
    """Returns a stored value; a text that is no JSON as it is, so that other studies are shown."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _study_exists(connection: sa.Connection, study_id: int) -> bool:
    query = sa.select(sa.exists().where(studies.c.study_id == study_id))
    return bool(connection.scalar(query))


def _attributes_of_studies(
    connection: sa.Connection, table: sa.Table
) -> defaultdict[int, dict[str, Any]]:
    found: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    query = sa.select(table.c.study_id, table.c.key, table.c.value_json)
    for study_id, key, text in connection.execute(query):
        found[study_id][key] = _value(text)
    return found


def _read_trials(
    connection: sa.Connection, study_id: int, heads: dict[int, Any]
) -> dict[int, FrozenTrial]:
    """Reads whole trials, given their rows of the table ``trials`` by id."""
    if not heads:
        return {}

    def rows(table: sa.Table, *columns: sa.ColumnElement[Any]) -> Iterable[Any]:
        query = sa.select(table.c.trial_id, *columns)
        if len(heads) <= MAX_NAMED_TRIALS:
            query = query.where(table.c.trial_id.in_(list(heads)))
        else:
            query = query.join(trials, trials.c.trial_id == table.c.trial_id).where(
                trials.c.study_id == study_id
            )
        if table is params:
            query = query.order_by(params.c.param_id)
        return (row for row in connection.execute(query) if row[0] in heads)

    contents = TrialContents()
    for row in rows(values, values.c.objective, values.c.value, _as_text(values.c.value_type)):
        contents.add_value(*row)
    kind = _as_text(reports.c.intermediate_value_type)
    for row in rows(reports, reports.c.step, reports.c.intermediate_value, kind):
        contents.add_report(*row)
    described = (params.c.param_name, params.c.param_value, params.c.distribution_json)
    for row in rows(params, *described):
        contents.add_param(*row)
    for row in rows(user_attributes, user_attributes.c.key, user_attributes.c.value_json):
        contents.add_user_attribute(*row)
    for row in rows(system_attributes, system_attributes.c.key, system_attributes.c.value_json):
        contents.add_system_attribute(*row)
    return {i: contents.build(head) for i, head in heads.items()}


def _is_same(trial: FrozenTrial, head: sa.Row[Any]) -> bool:
    """Whether a remembered trial is still that one: SQLite reuses the id of a deleted trial."""
    return (
        trial.number == head.number
        and trial.state.name == head.state
        and trial.datetime_complete == local_time(head.datetime_complete)
    )


def _as_text(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Casts an enumeration to text: PostgreSQL has a type for each."""
    return sa.cast(column, sa.String).label(column.name)
