"""Reading every trial of a large study in seconds, not half a minute.

Optuna builds an object for every row it reads: half a million of them for 10,000 trials of 50
epochs. Here they are read as plain rows, seven statements a study, and a trial that has ended
is read once.
"""

from __future__ import annotations

import functools
import json
import math
import threading
from collections import defaultdict
from collections.abc import Container, Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from searchae.errors import StorageError
from searchae.storage.resilient import ResilientStorage

# Optuna's own tables, as far as they are read here.
_tables = sa.MetaData()
_text, _real, _whole = sa.String, sa.Double, sa.Integer


def _table(name: str, **columns: Any) -> sa.Table:
    return sa.Table(name, _tables, *(sa.Column(c, kind) for c, kind in columns.items()))


_studies = _table("studies", study_id=_whole, study_name=_text)
_directions = _table("study_directions", study_id=_whole, objective=_whole, direction=_text)
_study_user = _table("study_user_attributes", study_id=_whole, key=_text, value_json=_text)
_study_system = _table("study_system_attributes", study_id=_whole, key=_text, value_json=_text)
_trials = _table(
    "trials",
    trial_id=_whole,
    number=_whole,
    study_id=_whole,
    state=_text,
    datetime_start=sa.DateTime,
    datetime_complete=sa.DateTime,
)
_params = _table(
    "trial_params",
    param_id=_whole,
    trial_id=_whole,
    param_name=_text,
    param_value=_real,
    distribution_json=_text,
)
_values = _table("trial_values", trial_id=_whole, objective=_whole, value=_real, value_type=_text)
_reports = _table(
    "trial_intermediate_values",
    trial_id=_whole,
    step=_whole,
    intermediate_value=_real,
    intermediate_value_type=_text,
)
_user = _table("trial_user_attributes", trial_id=_whole, key=_text, value_json=_text)
_system = _table("trial_system_attributes", trial_id=_whole, key=_text, value_json=_text)

_NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
_FEW = 500  # trials that are asked for one by one; more are read with their whole study


class TrialReader:
    """The trials of each study, the finished ones remembered."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._known: dict[int, dict[int, FrozenTrial]] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def trials(self, study_id: int) -> list[FrozenTrial]:
        """Reads what has changed.

        Args:
            study_id: As the database has it.

        Returns:
            Every trial, by number. Finished ones are shared by all callers: do not change them.

        Raises:
            KeyError: There is no such study.
        """
        # One reads, the others wait for what it has read.
        with self._locks[study_id], self._engine.connect() as connection, connection.begin():
            # Before the rest: what a trial holds is complete once it is seen to be finished.
            heads = self._heads(connection, study_id)
            known = self._known.get(study_id, {})
            now = {i: t for i, t in known.items() if i in heads and _is_same(t, heads[i])}
            missing = {i: head for i, head in heads.items() if i not in now}
            new = _read(connection, study_id, missing)
            self._known[study_id] = now | {i: t for i, t in new.items() if t.state.is_finished()}
            return sorted((now | new).values(), key=lambda t: t.number)

    def _heads(self, connection: sa.Connection, study_id: int) -> dict[int, Any]:
        rows = connection.execute(
            sa.select(
                _trials.c.trial_id,
                _trials.c.number,
                _named(_trials.c.state),
                _trials.c.datetime_start,
                _trials.c.datetime_complete,
            ).where(_trials.c.study_id == study_id)
        ).all()
        if not rows and not connection.scalar(
            sa.select(sa.exists().where(_studies.c.study_id == study_id))
        ):
            self._known.pop(study_id, None)
            raise KeyError(study_id)
        return {row[0]: row for row in rows}


class ReaderStorage(ResilientStorage):
    """The same storage, with quick reads of whole studies, for a server that only looks at trials.

    Attributes:
        outage: Set in the thread whose request found the database away; see ``server``.
    """

    def __init__(self, storage: ResilientStorage) -> None:
        super().__init__(storage._backend, storage.engine, backoff=storage.backoff)
        self._reader = TrialReader(storage.engine)
        self.outage = threading.local()

    def retried(self, function: Any) -> Any:
        """As its parent, and remembers in this thread that the database was away."""
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
        """Every trial by number; never copied, since nothing in the dashboard changes one."""
        trials: list[FrozenTrial] = self.retried(lambda: self._reader.trials(study_id))
        return [t for t in trials if states is None or t.state in states]

    def trial_ids(self, study_id: int) -> dict[int, int]:
        """Returns the database id of each trial of a study, by trial number."""

        def read() -> dict[int, int]:
            statement = sa.select(_trials.c.number, _trials.c.trial_id)
            with self.engine.connect() as connection, connection.begin():
                rows = connection.execute(statement.where(_trials.c.study_id == study_id)).all()
            return {row.number: row.trial_id for row in rows}

        ids: dict[int, int] = self.retried(read)
        return ids

    def get_all_studies(self) -> list[FrozenStudy]:
        """Every study by id; a note a trial makes 20,000 attributes of one."""
        studies: list[FrozenStudy] = self.retried(self._studies)
        return studies

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """A study's attributes, among them the notes on all its trials.

        Raises:
            KeyError: There is no such study.
        """
        found: dict[str, Any] = self.retried(lambda: self._system_attributes(study_id))
        return found

    def _studies(self) -> list[FrozenStudy]:
        with self.engine.connect() as connection, connection.begin():
            heads = connection.execute(sa.select(_studies).order_by(_studies.c.study_id)).all()
            directions: defaultdict[int, list[StudyDirection]] = defaultdict(list)
            for study, name in connection.execute(
                sa.select(_directions.c.study_id, _named(_directions.c.direction)).order_by(
                    _directions.c.objective
                )
            ):
                directions[study].append(StudyDirection[name])
            attributes: list[defaultdict[int, dict[str, Any]]] = []
            for table in (_study_user, _study_system):
                attributes.append(defaultdict(dict))
                for study, key, text in connection.execute(sa.select(table)):
                    attributes[-1][study][key] = json.loads(text)
        return [
            FrozenStudy(
                study_name=name,
                direction=None,
                directions=directions[i],
                user_attrs=attributes[0][i],
                system_attrs=attributes[1][i],
                study_id=i,
            )
            for i, name in heads
            if i in directions  # else it is being made
        ]

    def _system_attributes(self, study_id: int) -> dict[str, Any]:
        with self.engine.connect() as connection, connection.begin():
            asked = sa.select(_study_system).where(_study_system.c.study_id == study_id)
            rows = connection.execute(asked).all()
            if not rows and not connection.scalar(
                sa.select(sa.exists().where(_studies.c.study_id == study_id))
            ):
                raise KeyError(study_id)
        return {key: json.loads(text) for _, key, text in rows}


def _read(
    connection: sa.Connection, study_id: int, heads: dict[int, Any]
) -> dict[int, FrozenTrial]:
    if not heads:
        return {}

    def rows(table: sa.Table, *columns: sa.ColumnElement[Any]) -> Iterable[Any]:
        asked = sa.select(table.c.trial_id, *columns)
        if len(heads) <= _FEW:
            asked = asked.where(table.c.trial_id.in_(list(heads)))
        else:
            asked = asked.join(_trials, _trials.c.trial_id == table.c.trial_id).where(
                _trials.c.study_id == study_id
            )
        if table is _params:
            asked = asked.order_by(_params.c.param_id)
        return (row for row in connection.execute(asked) if row[0] in heads)

    values: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for trial, objective, value, kind in rows(
        _values, _values.c.objective, _values.c.value, _named(_values.c.value_type)
    ):
        values[trial][objective] = _NOT_FINITE.get(kind, value)
    reports: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for trial, step, value, kind in rows(
        _reports,
        _reports.c.step,
        _reports.c.intermediate_value,
        _named(_reports.c.intermediate_value_type),
    ):
        reports[trial][step] = value if kind == "FINITE" else _NOT_FINITE[kind]
    params: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    spaces: defaultdict[int, dict[str, BaseDistribution]] = defaultdict(dict)
    for trial, name, value, text in rows(
        _params, _params.c.param_name, _params.c.param_value, _params.c.distribution_json
    ):
        spaces[trial][name] = distribution = _distribution(text)
        params[trial][name] = distribution.to_external_repr(value)
    attributes: list[defaultdict[int, dict[str, Any]]] = []
    for table in (_user, _system):
        attributes.append(defaultdict(dict))
        for trial, key, text in rows(table, table.c.key, table.c.value_json):
            attributes[-1][trial][key] = json.loads(text)

    return {
        i: FrozenTrial(
            number=head.number,
            state=TrialState[head.state],
            value=None,
            values=[v for _, v in sorted(values[i].items())] or None,
            datetime_start=_local(head.datetime_start),
            datetime_complete=_local(head.datetime_complete),
            params=params[i],
            distributions=spaces[i],
            user_attrs=attributes[0][i],
            system_attrs=attributes[1][i],
            intermediate_values=reports[i],
            trial_id=i,
        )
        for i, head in heads.items()
    }


def _is_same(trial: FrozenTrial, head: sa.Row[Any]) -> bool:
    """Whether a remembered trial is still that one: SQLite gives a deleted trial's id again."""
    return (
        trial.number == head.number
        and trial.state.name == head.state
        and trial.datetime_complete == _local(head.datetime_complete)
    )


def _named(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """An enumeration's name as text: PostgreSQL has a type for each."""
    return sa.cast(column, sa.String).label(getattr(column, "name", None))


def _local(moment: datetime | None) -> datetime | None:
    """Optuna stores UTC, and shows local time, both without a zone."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


@functools.lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)
