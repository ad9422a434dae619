"""Optuna's cached storage with few statements per trial, on Optuna's own tables.

What is written is what Optuna writes: ``optuna.load_study`` and the dashboard read it. The calls
that a worker makes for every epoch and every trial are single statements here, each of which
checks by itself that the trial has not finished; all others are left to Optuna.

While a worker has a trial to itself (``exclusive_trial``), the storage knows that trial's own
attributes, and ``get_all_trials`` returns what samplers and pruners ask for: finished trials whole,
and of the others the state, the parameters and the system attributes (a rung's values), but not
each report. Only what is new is read: see ``changed_trials``.

This module uses private names of Optuna's. It is imported only where ``self_check`` decides whether
they are as expected, and used only with the schema revision ``tables.SCHEMA``.
"""
# ruff: noqa: D102 (BaseStorage documents the overridden methods)

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.storage import tables
from searchae.storage.changed_trials import ChangeReader, StudyChanges
from searchae.storage.optuna_compatibility import require_signature
from searchae.storage.single_statements import NOT_FOUND, Queries


class BatchedStorage(_CachedStorage):
    """Optuna's cached storage with fewer statements; see the module.

    Args:
        backend: Optuna's storage, whose engine is used.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._exclusive: FrozenTrial | None = None
        self._collected: dict[tuple[sa.Table, str], list[dict[str, Any]]] | None = None
        self._has_read = False  # since the collecting began
        self._queries = Queries(backend)
        self._changes = ChangeReader(self._queries.connect)
        self._study_ids: dict[str, int] = {}
        self._distributions: defaultdict[int, dict[str, BaseDistribution]] = defaultdict(dict)
        self._in_order: dict[int, list[FrozenTrial]] = {}

    # -- a worker's trial: ``trial_batching.TrialBatching``

    def read_trial(self, trial_id: int) -> FrozenTrial:
        return self.get_trial(trial_id)

    @contextmanager
    def exclusive_trial(self, trial: FrozenTrial) -> Iterator[None]:
        self._exclusive = trial
        try:
            yield
        finally:
            self._exclusive, self._collected, self._study_ids = None, None, {}

    @contextmanager
    def collect_writes(self) -> Iterator[Callable[[], None]]:
        # All of a trial's parameters are sampled from one reading of the other trials.
        self._collected, self._has_read = defaultdict(list), False
        try:
            yield self._write_collected
        finally:
            self._collected = None

    def _write_collected(self) -> None:
        if not self._exclusive or not self._collected:
            return
        if not self._queries.write_together(self._collected):
            self._check_unfinished(self._exclusive._trial_id)

    # -- writes

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        number, kind = tables.value_to_row(intermediate_value)
        row = {"step": step, "intermediate_value": number, "intermediate_value_type": kind}
        self._write(tables.reports, "step", trial_id, row)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        study_id = self._study_of(trial_id)
        with self._lock:
            known = self._distributions[study_id]
            first = known.get(param_name) or self._queries.distribution_of(study_id, param_name)
            if first is not None:
                known[param_name] = first
        if first is not None and first != distribution:
            self._check_unfinished(trial_id)
            check_distribution_compatibility(first, distribution)
        row = {
            "param_name": param_name,
            "param_value": param_value_internal,
            "distribution_json": distribution_to_json(distribution),
        }
        self._write(tables.params, "param_name", trial_id, row)
        known.setdefault(param_name, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        row = {"key": key, "value_json": json.dumps(value)}
        self._write(tables.user_attributes, "key", trial_id, row)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        row = {"key": key, "value_json": json.dumps(value)}
        self._write(tables.system_attributes, "key", trial_id, row)
        exclusive = self._if_exclusive(trial_id)
        if exclusive:
            exclusive.system_attrs[key] = value

    def _write(self, table: sa.Table, key: str, trial_id: int, row: dict[str, Any]) -> None:
        row = {"trial": trial_id, **row}
        if self._collected is not None and self._if_exclusive(trial_id):
            self._collected[table, key].append(row)
            return
        if not self._queries.write(table, key, row):
            self._check_unfinished(trial_id)

    def _check_unfinished(self, trial_id: int) -> None:
        self.check_trial_is_updatable(trial_id, self._queries.state_of(trial_id))

    # -- reads

    def get_trial(self, trial_id: int) -> FrozenTrial:
        exclusive = self._if_exclusive(trial_id)
        if exclusive and self._collected is not None:
            return copy.deepcopy(exclusive)
        with self._lock:
            finished = self._get_cached_trial(trial_id)
        if finished is not None:
            return finished
        found = self._changes.fetch([trial_id])
        if not found:
            raise KeyError(NOT_FOUND)
        return found[trial_id]

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        exclusive = self._if_exclusive(trial_id)
        if exclusive:
            return dict(exclusive.system_attrs)
        return super().get_trial_system_attrs(trial_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._queries.user_attributes_of_study(study_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        # Hyperband asks at each step. A study may be deleted and made again, but not meanwhile.
        if self._exclusive is None:
            return int(super().get_study_id_from_name(study_name))
        if study_name not in self._study_ids:
            self._study_ids[study_name] = super().get_study_id_from_name(study_name)
        return self._study_ids[study_name]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        # As Optuna's own, which sorts the trials at each call.
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            if study_id not in self._in_order:
                by_number = sorted(self._studies[study_id].trials.items())
                self._in_order[study_id] = [trial for _, trial in by_number]
            every = self._in_order[study_id]
            found = every[:] if states is None else [t for t in every if t.state in states]
            return copy.deepcopy(found) if deepcopy else found

    def delete_study(self, study_id: int) -> None:
        with self._lock:  # SQLite may give the id to another study
            self._in_order.pop(study_id, None)
            self._distributions.pop(study_id, None)
            self._changes.forget(study_id)
        super().delete_study(study_id)

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
        if self._exclusive is None:
            known = self._studies.get(study_id)
            if (known and known.trials) or not self._read_whole(study_id):
                super()._read_trials_from_remote_storage(study_id)
        elif self._collected is None or not self._has_read:
            with self._lock:
                self._read_changes(study_id)
            self._has_read = True

    def _read_whole(self, study_id: int) -> bool:
        """Reads a study for the first time, in a third of the time that Optuna takes.

        Returns:
            Whether there were trials.
        """
        with self._lock:
            found = self._changes.fetch(study_id, of_study=True)
            if found:
                self._note_trials(study_id, found)
            return bool(found)

    def _read_changes(self, study_id: int) -> None:
        study = self._studies.setdefault(study_id, _StudyInfo())
        unfinished = study.unfinished_trial_ids
        changes = self._changes.read(
            study_id, unfinished=unfinished, known=self._trial_id_to_study_id_and_number
        )
        for trial_id, state in changes.states.items():
            _, number = self._trial_id_to_study_id_and_number[trial_id]
            study.trials[number].state = state
            changes.contents.update(trial_id, study.trials[number])
        self._note_trials(study_id, changes.trials)

    def _note_trials(self, study_id: int, trials: dict[int, FrozenTrial]) -> None:
        """Puts trials that were read whole into Optuna's cache, as Optuna does."""
        study = self._studies.setdefault(study_id, _StudyInfo())
        self._add_trials_to_cache(study_id, list(trials.values()))
        unfinished = study.unfinished_trial_ids
        for trial_id, trial in trials.items():
            if trial.state.is_finished():
                unfinished.discard(trial_id)
                study.last_finished_trial_id = max(study.last_finished_trial_id, trial_id)
            else:
                unfinished.add(trial_id)

    def _study_of(self, trial_id: int) -> int:
        with self._lock:
            if trial_id in self._trial_id_to_study_id_and_number:
                return self._trial_id_to_study_id_and_number[trial_id][0]
        return self._queries.study_of(trial_id)

    def _if_exclusive(self, trial_id: int) -> FrozenTrial | None:
        trial = self._exclusive
        return trial if trial is not None and trial._trial_id == trial_id else None


def self_check() -> None:
    """Checks that Optuna's private names are as this module expects them.

    Raises:
        Exception: They are not.
    """
    require_signature(_CachedStorage._read_trials_from_remote_storage, ["self", "study_id"])
    require_signature(_CachedStorage._add_trials_to_cache, ["self", "study_id", "trials"])
    require_signature(_CachedStorage._get_cached_trial, ["self", "trial_id"])
    finished, running = create_trial(value=1.0), create_trial(state=TrialState.RUNNING)
    for i, trial in enumerate((finished, running)):
        trial.number, trial._trial_id = i, 10 + i
    backend: Any = SimpleNamespace(
        _create_new_trial=lambda *_: running, delete_study=lambda _: None
    )
    storage = BatchedStorage(backend)
    reads = iter(
        [StudyChanges({10: finished, 11: running}), StudyChanges({}, {11: TrialState.WAITING})]
    )
    storage._changes.read = lambda *_, **__: next(reads)  # type: ignore[method-assign]
    with storage.exclusive_trial(running):
        checks = [
            storage.get_all_trials(1, deepcopy=False) == [finished, running],
            storage.get_trial(10) is finished,
            storage._get_cached_trial(11) is None,
            storage._studies[1].unfinished_trial_ids == {11},
            [t.state.name for t in storage.get_all_trials(1)] == ["COMPLETE", "WAITING"],
            storage.create_new_trial(1) == 11,
        ]
    storage.delete_study(1)
    checks.append(not storage._trial_id_to_study_id_and_number and not storage._studies)
    if not all(checks):
        raise RuntimeError(f"_CachedStorage behaves differently: {checks}")
