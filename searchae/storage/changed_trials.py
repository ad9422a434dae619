"""Reads of a study's trials that fetch only what is new.

Rows of trials, parameters and attributes are numbered, so that the highest numbers read so far
(high-water marks) tell what is new, however many trials have finished, run or wait. Rows are
numbered before they are committed, so that the last ``REREAD_ROWS`` rows below a mark are read
again. A parameter or attribute that is committed even later is read when its trial finishes.
(Trials are numbered under the study's lock, one after the other.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from searchae.storage.frozen_trials import TrialContents
from searchae.storage.statements import select_changes, select_trials
from searchae.storage.tables import UNFINISHED, params, system_attributes

REREAD_ROWS = 200
"""Far more rows than are written while another worker's statement is being committed."""

MANY_UNFINISHED = 100
"""Up to so many unfinished trials, all their parameters and attributes are read each time."""

MAX_NAMED_TRIALS = 1000
"""Most trials that one statement names, five times each; of more the whole study is read. SQLite
allows 32,766 variables."""


@dataclass(frozen=True)
class StudyChanges:
    """What has changed in a study since the last read.

    Attributes:
        trials: Trial id -> the whole trial, of those that are new or have finished.
        states: Trial id -> the state of each trial that was and still is unfinished.
        contents: Parameters and system attributes of the unfinished trials.
    """

    trials: dict[int, FrozenTrial]
    states: dict[int, TrialState] = field(default_factory=dict)
    contents: TrialContents = field(default_factory=TrialContents)


@dataclass(frozen=True)
class _HighWaterMarks:
    """The highest ids of rows read so far."""

    trial: int
    param: int
    attribute: int


def fetch_trials(
    connection: sa.Connection, which: list[int] | int, *, of_study: bool = False
) -> dict[int, FrozenTrial]:
    """Reads whole trials; see ``ChangeReader.fetch``."""
    heads_query, contents_query = select_trials(of_study=of_study)
    heads = connection.execute(heads_query, {"which": which}).all()
    rows = connection.execute(contents_query, {"which": which}).all() if heads else []
    contents = TrialContents()
    for row in sorted(rows, key=lambda r: r.id):
        contents.add(row)
    return {head.trial_id: contents.build(head) for head in heads}


class ChangeReader:
    """Reads what has changed in studies since it was last asked.

    Args:
        begin: Opens a connection with a transaction of its own for one statement or more.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
        self._begin = begin
        self._marks: dict[int, _HighWaterMarks] = {}

    def forget(self, study_id: int) -> None:
        """Forgets a deleted study; SQLite may give its id to another."""
        self._marks.pop(study_id, None)

    def read(
        self, study_id: int, *, unfinished: Collection[int], known: Collection[int]
    ) -> StudyChanges:
        """Reads what is new; every trial of the study the first time.

        Args:
            study_id: The study's id in the database.
            unfinished: The ids of its trials that had not finished when they were last read.
            known: The ids of all trials that have been read.
        """
        if study_id not in self._marks:
            marks = self._current_marks()  # before the trials: what is committed between is new
            found = self.fetch(study_id, of_study=True)
            self._marks[study_id] = replace(marks, trial=max(found, default=0))
            return StudyChanges(found)
        marks = self._marks[study_id]
        rows = self._changed_rows(study_id, marks, unfinished)
        contents, states = TrialContents(), dict[int, TrialState]()
        highest = {"param": marks.param, "system": marks.attribute}
        for row in rows:
            if row.kind == "state":
                states |= dict.fromkeys(map(int, row.text.split(",")), TrialState[row.name])
            else:
                contents.add(row)
                highest[row.kind] = max(highest[row.kind], row.id)
        before = set(unfinished)
        still = {i: state for i, state in states.items() if i in before and state in UNFINISHED}
        newly_unfinished = {
            i for i, state in states.items() if state in UNFINISHED and i not in before
        }
        unknown = {i for i in states if i not in known}
        changed = newly_unfinished | unknown | (before - still.keys())
        if len(changed) > MAX_NAMED_TRIALS:
            found = self.fetch(study_id, of_study=True)
        else:
            found = self.fetch(sorted(changed)) if changed else {}
        self._marks[study_id] = _HighWaterMarks(
            trial=max([marks.trial, *states, *found]),
            param=highest["param"],
            attribute=highest["system"],
        )
        return StudyChanges(found, still, contents)

    def fetch(self, which: list[int] | int, *, of_study: bool = False) -> dict[int, FrozenTrial]:
        """Reads whole trials.

        Args:
            which: The trials' ids, or a study's id.
            of_study: Whether ``which`` is a study's id.

        Returns:
            Trial id -> trial, of those that exist, in the order of the ids.
        """
        with self._begin() as connection:
            return fetch_trials(connection, which, of_study=of_study)

    def _changed_rows(
        self, study_id: int, marks: _HighWaterMarks, unfinished: Collection[int]
    ) -> list[Any]:
        many = len(unfinished) > MANY_UNFINISHED
        asked: dict[str, Any] = {"study": study_id, "trial": marks.trial - REREAD_ROWS}
        if many:
            asked["param"] = marks.param - REREAD_ROWS
            asked["attribute"] = marks.attribute - REREAD_ROWS
        else:
            asked["unfinished"] = sorted(unfinished)
        with self._begin() as connection:
            return list(connection.execute(select_changes(all_unfinished=many), asked))

    def _current_marks(self) -> _HighWaterMarks:
        (param_id,), (attribute_id,) = params.primary_key, system_attributes.primary_key
        query = sa.select(
            sa.select(sa.func.max(param_id)).scalar_subquery(),
            sa.select(sa.func.max(attribute_id)).scalar_subquery(),
        )
        with self._begin() as connection:
            param, attribute = connection.execute(query).one()
        return _HighWaterMarks(trial=0, param=param or 0, attribute=attribute or 0)
