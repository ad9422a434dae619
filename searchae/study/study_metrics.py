"""Figures of all studies for a monitoring system, read in few statements and without their trials.

They are asked for every few seconds, for as long as anything runs: what grows with a study, its
reports, is counted once, and after that only what is new.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.storage import (
    ResilientStorage,
    reading_snapshot,
    reports,
    studies,
    study_attributes,
    trial_values,
    trials,
)
from searchae.study import worker_registry
from searchae.study.attributes import BUDGET, SPEC

SETTLED_ROWS = 2000
"""Reports that came before so many others are counted for good. Ids are given out before a row is
committed, so that among the newest ones a row may still come."""


@dataclass(frozen=True)
class StudyMetrics:
    """Figures of one study.

    Attributes:
        name: Its name.
        trials: State (``complete``, ``running`` ...) -> number of trials, imported ones included.
        budget: How many trials have to end complete or pruned.
        epochs: Epochs that have been reported.
        workers: Workers heard of within the grace period.
        best_db: The best PSNR of a complete trial in dB; None without one.
    """

    name: str
    trials: Mapping[str, int]
    budget: int
    epochs: int
    workers: int
    best_db: float | None


@dataclass(frozen=True)
class Metrics:
    """Figures of a database.

    Attributes:
        studies: Those of searchae's studies, by name.
        latency_s: Seconds that the database took to answer the smallest question.
    """

    studies: tuple[StudyMetrics, ...]
    latency_s: float


@dataclass
class MetricsReader:
    """Reads the figures; may be used by several threads.

    Args:
        storage: The database.
    """

    storage: ResilientStorage
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._epochs = EpochCounter()
        self._has_workers = False  # the table is made when somebody begins to work

    def read(self) -> Metrics:
        """Reads the figures as they are now.

        Raises:
            StorageError: The database was away for too long.
        """
        with self._lock:
            found: Metrics = self.storage.retried(self._read)
            return found

    def _read(self) -> Metrics:
        with reading_snapshot(self.storage.engine) as connection:
            began = time.perf_counter()
            connection.execute(sa.text("SELECT 1")).close()
            latency_s = time.perf_counter() - began
            names = {row.study_id: row.study_name for row in connection.execute(sa.select(studies))}
            settings = _settings(connection)
            by_state, best = _trials(connection)
            epochs = self._epochs.count(connection)
            workers = self._workers(connection, settings)
        found = (
            StudyMetrics(
                name=names[study_id],
                trials=by_state[study_id],
                budget=setting.budget,
                epochs=epochs[study_id],
                workers=workers[study_id],
                best_db=best.get(study_id),
            )
            for study_id, setting in settings.items()
        )
        return Metrics(tuple(sorted(found, key=lambda one: one.name)), latency_s)

    def _workers(self, connection: sa.Connection, settings: Mapping[int, _Setting]) -> Counter[int]:
        self._has_workers = self._has_workers or sa.inspect(connection).has_table(
            worker_registry.workers.name
        )
        if not self._has_workers:
            return Counter()
        graces = {study_id: found.grace_s for study_id, found in settings.items()}
        return worker_registry.count_live(connection, graces)


class EpochCounter:
    """Counts the reports of each study, from the second time on only the new ones."""

    def __init__(self) -> None:
        self._counted_to = 0
        self._counts: Counter[int] = Counter()

    def count(self, connection: sa.Connection) -> Counter[int]:
        """Returns how many reports each study has, by its id."""
        (row_id,) = reports.primary_key
        last = connection.scalar(sa.select(sa.func.max(row_id))) or 0
        if last < self._counted_to:  # a study was deleted, and SQLite gives its ids out again
            self._counted_to, self._counts = 0, Counter()
        settled = max(self._counted_to, last - SETTLED_ROWS)
        if settled > self._counted_to:
            self._counts += _reports(connection, row_id > self._counted_to, row_id <= settled)
            self._counted_to = settled
        return self._counts + _reports(connection, row_id > settled)


def _reports(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> Counter[int]:
    query = (
        sa.select(trials.c.study_id, sa.func.count())
        .join(trials, trials.c.trial_id == reports.c.trial_id)
        .where(*which)
        .group_by(trials.c.study_id)
    )
    return Counter({row[0]: int(row[1]) for row in connection.execute(query)})


@dataclass(frozen=True)
class _Setting:
    budget: int
    grace_s: float


def _settings(connection: sa.Connection) -> dict[int, _Setting]:
    """Returns the budget and the grace period of each study of searchae's that can be read."""
    table = study_attributes
    query = sa.select(table.c.study_id, table.c.key, table.c.value_json)
    found: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for study_id, key, text in connection.execute(query.where(table.c.key.in_((SPEC, BUDGET)))):
        found[study_id][key] = text
    settings = {}
    for study_id, texts in found.items():
        if (setting := _setting(texts.get(SPEC, ""), texts.get(BUDGET, ""))) is not None:
            settings[study_id] = setting
    return settings


@lru_cache(maxsize=1024)
def _setting(spec: str, budget: str) -> _Setting | None:
    try:
        search = json.loads(spec)["search"]
        trials_in_all = json.loads(budget) if budget else search["trials"]
        return _Setting(int(trials_in_all), float(search["grace_s"]))
    except (ValueError, KeyError, TypeError):  # being made, or damaged
        return None


def _trials(
    connection: sa.Connection,
) -> tuple[defaultdict[int, dict[str, int]], dict[int, float]]:
    """Returns each study's number of trials by state, and its best PSNR in dB."""
    of_trial = (trial_values.c.trial_id == trials.c.trial_id) & (trial_values.c.objective == 0)
    query = (
        sa.select(
            trials.c.study_id, trials.c.state, sa.func.count(), sa.func.max(trial_values.c.value)
        )
        .outerjoin(trial_values, of_trial)
        .group_by(trials.c.study_id, trials.c.state)
    )
    none = {state.name.lower(): 0 for state in TrialState}
    by_state: defaultdict[int, dict[str, int]] = defaultdict(lambda: dict(none))
    best: dict[int, float] = {}
    for study_id, state, count, highest in connection.execute(query):
        by_state[study_id][state.name.lower()] = int(count)
        if state == TrialState.COMPLETE and highest is not None:
            best[study_id] = float(highest)
    return by_state, best
