"""Rows of Optuna's tables made into ``optuna.trial.FrozenTrial`` objects."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from searchae.storage.tables import NON_FINITE

_OWN_TYPES = {
    "searchae:error": str,
    "searchae:history": dict,
    "searchae:measured": dict,
    "searchae:outcome": str,
    "searchae:runtime": dict,
    "searchae:started_from": str,
    "searchae:training": dict,
    "searchae:warm_start": str,
}
"""Attributes of trials -> their types. Another program may have written something else."""

parse_distribution = lru_cache(maxsize=4096)(json_to_distribution)


class TrialContents:
    """What belongs to some trials, collected row by row before the trials are constructed."""

    def __init__(self) -> None:
        self._params: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        self._distributions: defaultdict[int, dict[str, BaseDistribution]] = defaultdict(dict)
        self._user: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        self._system: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        self._reports: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._values: defaultdict[int, dict[int, float]] = defaultdict(dict)

    def add(self, row: Any) -> None:
        """Adds a row of ``statements.select_trials`` or ``select_changes``.

        Args:
            row: ``kind``, ``id``, ``trial_id``, ``name``, ``number``, ``text``; the rows of a
                trial's parameters in the order of their ids, which is that of the suggestions.
        """
        kind, _, trial_id, name, number, text = row
        if kind == "report":
            self.add_report(trial_id, int(name), number, text)
        elif kind == "param":
            self.add_param(trial_id, name, number, text)
        elif kind == "system":
            self.add_system_attribute(trial_id, name, text)
        elif kind == "user":
            self.add_user_attribute(trial_id, name, text)
        elif kind == "value":
            self.add_value(trial_id, int(name), number, text)

    def add_param(self, trial_id: int, name: str, number: float, distribution_json: str) -> None:
        """Adds a row of ``trial_params``, with the value in Optuna's internal representation."""
        distribution = parse_distribution(distribution_json)
        self._params[trial_id][name] = distribution.to_external_repr(number)
        self._distributions[trial_id][name] = distribution

    def add_user_attribute(self, trial_id: int, key: str, value_json: str) -> None:
        """Adds a row of ``trial_user_attributes``; searchae's own only if it is of its type."""
        value = json.loads(value_json)
        if isinstance(value, _OWN_TYPES.get(key, object)):
            self._user[trial_id][key] = value

    def add_system_attribute(self, trial_id: int, key: str, value_json: str) -> None:
        """Adds a row of ``trial_system_attributes``."""
        self._system[trial_id][key] = json.loads(value_json)

    def add_report(self, trial_id: int, step: int, number: float | None, value_type: str) -> None:
        """Adds a row of ``trial_intermediate_values``."""
        self._reports[trial_id][step] = _value(number, value_type)

    def add_value(
        self, trial_id: int, objective: int, number: float | None, value_type: str
    ) -> None:
        """Adds a row of ``trial_values``."""
        self._values[trial_id][objective] = _value(number, value_type)

    def build(self, head: Any) -> FrozenTrial:
        """Returns the trial of a row of ``trials``, with local times as Optuna has them.

        Args:
            head: ``trial_id``, ``number``, ``state`` (a ``TrialState`` or its name),
                ``datetime_start``, ``datetime_complete``.
        """
        i, state = head.trial_id, head.state
        return FrozenTrial(
            number=head.number,
            state=state if isinstance(state, TrialState) else TrialState[state],
            value=None,
            values=[value for _, value in sorted(self._values[i].items())] or None,
            datetime_start=local_time(head.datetime_start),
            datetime_complete=local_time(head.datetime_complete),
            params=self._params[i],
            distributions=self._distributions[i],
            user_attrs=self._user[i],
            system_attrs=self._system[i],
            intermediate_values=self._reports[i],
            trial_id=i,
        )

    def update(self, trial_id: int, trial: FrozenTrial) -> None:
        """Adds the collected parameters and system attributes to an unfinished trial."""
        trial.params.update(self._params[trial_id])
        trial.distributions.update(self._distributions[trial_id])
        trial.system_attrs.update(self._system[trial_id])


def _value(number: float | None, value_type: str) -> float:
    return number if number is not None else NON_FINITE[value_type]


def local_time(stored: datetime | None) -> datetime | None:
    """Converts a stored UTC time to local time; both are without a zone, as in Optuna."""
    if stored is None:
        return None
    return stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
