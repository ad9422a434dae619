"""Optuna's storage in few round trips, on Optuna's own tables.

What is written is what Optuna writes: ``optuna.load_study`` and the dashboard read it. The calls
that a worker makes for every epoch and every trial are single statements here, which say in
themselves that the trial must not have ended; all else is left to Optuna.

While a worker holds a trial (``holding``), it knows that trial's own attributes, and
``get_all_trials`` gives what samplers and pruners ask for: ended trials whole, and of the others
the state, the parameters and the system attributes (a rung's values), but not each report. Only
what is new is read, however many trials have ended, wait or run: the rows of trials, parameters and
attributes are numbered. They are numbered before they are committed, so the last ones are looked
at again; a parameter or attribute that comes later still is seen when its trial ends. (Trials are
numbered under the study's lock, one after the other.)

This relies on Optuna's schema ``tables.SCHEMA``; ``LeanStorage`` refuses any other.
"""
# ruff: noqa: D102 (what the overridden methods do is said by BaseStorage)

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from searchae.errors import StorageError
from searchae.storage import tables
from searchae.storage.tables import (
    params,
    studies,
    study_attributes,
    system_attributes,
    trials,
    upsert_if_unfinished,
)

LOOKED_AT_AGAIN = 200
"""Rows; far more than are written while a statement of another worker is being committed."""


MANY = 100
"""Unfinished trials. Of fewer, each look reads all parameters and attributes; of more, the new ones
and the last ``LOOKED_AT_AGAIN``."""
NAMED = 1000
"""Trials that one statement names, five times; of more the whole study is read. SQLite takes 32,766
variables."""


@dataclass
class _Marks:
    """The last rows that have been read of one study."""

    trial: int
    param: int
    attribute: int


class BatchedStorage(_CachedStorage):
    """See the module; otherwise Optuna's own cached storage.

    Args:
        backend: Optuna's storage, whose engine is used.

    Raises:
        StorageError: The installed Optuna has other tables.
    """

    def __init__(self, backend: RDBStorage) -> None:
        if backend.get_head_version() != tables.SCHEMA:
            raise StorageError(
                f"searchae works on Optuna's tables {tables.SCHEMA}, the installed Optuna has "
                f"{backend.get_head_version()}; install another version of either"
            )
        super().__init__(backend)
        self._mine: FrozenTrial | None = None
        self._collected: dict[tuple[sa.Table, str], list[dict[str, Any]]] | None = None
        self._has_looked = False
        self._marks: dict[int, _Marks] = {}
        self._ids: dict[str, int] = {}
        self._in_order: dict[int, list[FrozenTrial]] = {}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        state.pop("_quick", None)
        return state

    # -- what a worker says about its work

    @contextmanager
    def holding(self, trial: FrozenTrial) -> Iterator[None]:
        """While the block runs, nobody but this process writes the trial's attributes."""
        self._mine = trial
        try:
            yield
        finally:
            self._mine, self._collected, self._ids = None, None, {}

    @contextmanager
    def collecting(self) -> Iterator[Callable[[], None]]:
        """Collects what is written to the trial held, to be written at once by what is yielded.

        All of a trial's parameters are sampled from one look at the others.
        """
        self._collected, self._has_looked = defaultdict(list), False
        try:
            yield self._write_collected
        finally:
            self._collected = None

    def _write_collected(self) -> None:
        if not self._mine or not self._collected:
            return
        written = 0
        with self._begin(self._backend.engine) as connection:
            for (table, key), rows in self._collected.items():
                written += connection.execute(
                    upsert_if_unfinished(self._dialect, table, key), rows
                ).rowcount
        if written < sum(map(len, self._collected.values())):
            self._check_unfinished(self._mine._trial_id)

    # -- writes

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        value, kind = stored(intermediate_value)
        row = {"step": step, "intermediate_value": value, "intermediate_value_type": kind}
        self._put(tables.reports, "step", trial_id, row)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        with self._lock:
            study_id = self._study_of(trial_id)
            known = self._studies[study_id].param_distribution
            if param_name not in known:
                known |= self._stored_distribution(study_id, param_name)
            first = known.get(param_name, distribution)
        if first != distribution:
            self._check_unfinished(trial_id)
            check_distribution_compatibility(first, distribution)
        row = {
            "param_name": param_name,
            "param_value": param_value_internal,
            "distribution_json": distribution_to_json(distribution),
        }
        self._put(params, "param_name", trial_id, row)
        known.setdefault(param_name, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        row = {"key": key, "value_json": json.dumps(value)}
        self._put(tables.user_attributes, "key", trial_id, row)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        row = {"key": key, "value_json": json.dumps(value)}
        self._put(system_attributes, "key", trial_id, row)
        if self._is_mine(trial_id) and self._mine:
            self._mine.system_attrs[key] = value

    def _put(self, table: sa.Table, key: str, trial_id: int, row: dict[str, Any]) -> None:
        row = {"trial": trial_id, **row}
        if self._collected is not None and self._is_mine(trial_id):
            self._collected[table, key].append(row)
            return
        with self._begin() as connection:
            written = connection.execute(
                upsert_if_unfinished(self._dialect, table, key), row
            ).rowcount
        if not written:
            self._check_unfinished(trial_id)

    def _check_unfinished(self, trial_id: int) -> None:
        query = sa.select(trials.c.state).where(trials.c.trial_id == trial_id)
        with self._begin() as connection:
            state = connection.execute(query).scalar_one_or_none()
        if state is None:
            raise KeyError(models.NOT_FOUND_MSG)
        self.check_trial_is_updatable(trial_id, state)

    # -- reads

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if self._collected is not None and self._is_mine(trial_id):
            return copy.deepcopy(self._mine)  # type: ignore[return-value]
        with self._lock:
            ended = self._get_cached_trial(trial_id)
        if ended is not None:
            return ended
        found = self._fetch([trial_id])
        if not found:
            raise KeyError(models.NOT_FOUND_MSG)
        return found[0]

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        if self._is_mine(trial_id) and self._mine:
            return dict(self._mine.system_attrs)
        return super().get_trial_system_attrs(trial_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        on = study_attributes.c.study_id == studies.c.study_id
        query = (
            sa.select(study_attributes.c.key, study_attributes.c.value_json)
            .select_from(studies.outerjoin(study_attributes, on))
            .where(studies.c.study_id == study_id)
        )
        with self._begin() as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise KeyError(models.NOT_FOUND_MSG)
        return {key: json.loads(value) for key, value in rows if key is not None}

    def get_study_id_from_name(self, study_name: str) -> int:
        # Hyperband asks at each step. A study may be deleted and made again, but not meanwhile.
        if self._mine is None:
            return int(super().get_study_id_from_name(study_name))
        if study_name not in self._ids:
            self._ids[study_name] = super().get_study_id_from_name(study_name)
        return self._ids[study_name]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        # As Optuna's own, which sorts them at each call.
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            if study_id not in self._in_order:
                by_number = sorted(self._studies[study_id].trials.items())
                self._in_order[study_id] = [trial for _, trial in by_number]
            every = self._in_order[study_id]
            found = every[:] if states is None else [t for t in every if t.state in states]
            return copy.deepcopy(found) if deepcopy else found

    def delete_study(self, study_id: int) -> None:
        super().delete_study(study_id)
        with self._lock:  # SQLite may give the id to another study
            self._in_order.pop(study_id, None)
            self._marks.pop(study_id, None)

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        super()._add_trials_to_cache(study_id, trials)
        every = self._in_order.get(study_id, [])
        for trial in trials:
            if trial.number < len(every) and every[trial.number].number == trial.number:
                every[trial.number] = trial
            elif trial.number == len(every) > 0 and every[-1].number == trial.number - 1:
                every.append(trial)
            else:
                self._in_order.pop(study_id, None)
                return

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._mine is None:
            super()._read_trials_from_remote_storage(study_id)
        elif self._collected is None or not self._has_looked:
            with self._lock:
                self._look(study_id)
            self._has_looked = True

    def _look(self, study_id: int) -> None:
        """Brings the cache up to date with what is new; everything, the first time."""
        study = self._studies.setdefault(study_id, _StudyInfo())
        if study_id not in self._marks:
            marks = self._last_rows()  # before what they are the marks of
            found = self._fetch(study_id, of_study=True)
            self._marks[study_id] = marks
            self._remember(study_id, found)
            return
        marks, before = self._marks[study_id], study.unfinished_trial_ids
        many = len(before) > MANY
        asked: dict[str, Any] = {"study": study_id, "trial": marks.trial - LOOKED_AT_AGAIN}
        if many:
            asked["param"] = marks.param - LOOKED_AT_AGAIN
            asked["attribute"] = marks.attribute - LOOKED_AT_AGAIN
        else:
            asked["unfinished"] = sorted(before)
        with self._begin() as connection:
            rows = connection.execute(tables.select_changes(many=many), asked).all()
        states: dict[int, TrialState] = {}
        for row in rows:
            if row.kind == "state":
                states |= dict.fromkeys(map(int, row.text.split(",")), TrialState[row.name])
        marks.trial = max([marks.trial, *states])
        known = self._trial_id_to_study_id_and_number
        unseen = {i for i, state in states.items() if state in tables.UNFINISHED} - before
        new = unseen | (states.keys() - known.keys())
        ended = {i for i in before if states.get(i) not in tables.UNFINISHED}
        for trial_id in before - ended:
            self._cached(trial_id).state = states[trial_id]
        for row in rows:
            if row.trial_id in study.unfinished_trial_ids:
                tables.add_row(self._cached(row.trial_id), row)
            if row.kind == "param":
                marks.param = max(marks.param, row.id)
            elif row.kind == "attribute":
                marks.attribute = max(marks.attribute, row.id)
        changed = list(new | ended)
        if len(changed) > NAMED:
            self._remember(study_id, self._fetch(study_id, of_study=True))
        elif changed:
            self._remember(study_id, self._fetch(changed))

    def _remember(self, study_id: int, found: list[FrozenTrial]) -> None:
        study, marks = self._studies[study_id], self._marks[study_id]
        self._add_trials_to_cache(study_id, found)
        for trial in found:
            marks.trial = max(marks.trial, trial._trial_id)
            if trial.state.is_finished():
                study.unfinished_trial_ids.discard(trial._trial_id)
                study.last_finished_trial_id = max(study.last_finished_trial_id, trial._trial_id)
            else:
                study.unfinished_trial_ids.add(trial._trial_id)

    def _last_rows(self) -> _Marks:
        query = sa.select(
            sa.select(sa.func.max(params.c.param_id)).scalar_subquery(),
            sa.select(sa.func.max(system_attributes.c.trial_system_attribute_id)).scalar_subquery(),
        )
        with self._begin() as connection:
            param, attribute = connection.execute(query).one()
        return _Marks(trial=0, param=param or 0, attribute=attribute or 0)

    def _fetch(self, which: list[int] | int, *, of_study: bool = False) -> list[FrozenTrial]:
        """Trials as they are in the database, in their order: see ``tables.whole``."""
        own, contents = tables.select_trials(of_study=of_study)
        with self._begin() as connection:
            found = {
                r.trial_id: tables.to_frozen_trial(r)
                for r in connection.execute(own, {"which": which})
            }
            rows = connection.execute(contents, {"which": which}).all() if found else []
        for row in sorted(rows, key=lambda r: r.id):
            if row.trial_id in found:
                tables.add_row(found[row.trial_id], row)
        return list(found.values())

    def _stored_distribution(self, study_id: int, name: str) -> dict[str, BaseDistribution]:
        query = (
            sa.select(params.c.distribution_json)
            .where(
                params.c.trial_id.in_(tables.trial_ids_of_study(study_id)),
                params.c.param_name == name,
            )
            .limit(1)
        )
        with self._begin() as connection:
            stored = connection.execute(query).scalar_one_or_none()
        return {} if stored is None else {name: tables.distribution_of(stored)}

    # -- plumbing

    def _study_of(self, trial_id: int) -> int:
        if trial_id in self._trial_id_to_study_id_and_number:
            return self._trial_id_to_study_id_and_number[trial_id][0]
        query = sa.select(trials.c.study_id).where(trials.c.trial_id == trial_id)
        with self._begin() as connection:
            study_id = connection.execute(query).scalar_one_or_none()
        if study_id is None:
            raise KeyError(models.NOT_FOUND_MSG)
        self._studies.setdefault(study_id, _StudyInfo())
        return int(study_id)

    def _is_mine(self, trial_id: int) -> bool:
        return self._mine is not None and self._mine._trial_id == trial_id

    def _cached(self, trial_id: int) -> FrozenTrial:
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        return self._studies[study_id].trials[number]

    @contextmanager
    def _begin(self, engine: sa.Engine | None = None) -> Iterator[sa.Connection]:
        try:
            with (engine or self._quick).begin() as connection:
                yield connection
        except SQLAlchemyError as e:
            raise StorageInternalError(f"{type(e).__name__} in a statement of searchae's") from e

    @property
    def _dialect(self) -> str:
        return str(self._backend.engine.dialect.name)

    @cached_property
    def _quick(self) -> sa.Engine:
        """Commits each statement by itself, which saves BEGIN and COMMIT."""
        engine = self._backend.engine
        if self._dialect == "sqlite":  # costs no round trip there
            return engine
        return engine.execution_options(isolation_level="AUTOCOMMIT")
