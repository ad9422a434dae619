"""The budget: how many trials are wanted, how many there are, and whether one more may start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.storage import trials
from searchae.study.attributes import (
    BUDGET,
    FOREIGN,
    IMPORTED,
    OPEN_UNTIL,
    STOP_ASKED,
    STOPPED,
    TIME_LIMIT,
    TRAININGS_OF,
)
from searchae.study.transaction import StudyTransaction


class NoTrial(Enum):
    """Why there is no trial to claim."""

    DONE = "the budget is spent"
    WAIT = "the rest of the budget is being worked on"
    TIME_UP = "the study's time is up"
    STOPPED = "a fault stopped the study"
    ASKED = "somebody asked for a stop"
    SETTLE = "only paused trials are left, and none is to go on"


@dataclass(frozen=True)
class TrialCounts:
    """The budget of a study and its own trials by state; imported trials are not counted.

    Attributes:
        budget: Trials that have to end complete or pruned.
        complete: Trained to the end.
        pruned: Stopped by the pruner.
        failed: Lost with their workers too often, or ended by a bug; outside the budget.
        running: Being trained.
        waiting: Put back, to be continued by the next worker.
        paused: Paused by the pruner, to go on if they turn out to be among the best.
    """

    budget: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int
    paused: int = 0

    @property
    def finished(self) -> int:
        """Trials that count towards the budget."""
        return self.complete + self.pruned

    @classmethod
    def of(
        cls,
        by_state: Mapping[TrialState, int],
        attributes: Mapping[str, Any],
        *,
        default_budget: int,
        paused: int = 0,
    ) -> TrialCounts:
        """Returns the counts of a study.

        Args:
            by_state: How many trials are in each state, imported ones included.
            attributes: The study's user attributes.
            default_budget: The budget of a study that has none stored.
            paused: How many of those that wait are paused.
        """
        others = Counter(attributes.get(IMPORTED, {})) + Counter(attributes.get(FOREIGN, {}))
        return cls(
            budget=attributes.get(BUDGET, default_budget),
            complete=by_state.get(TrialState.COMPLETE, 0) - others["complete"],
            pruned=by_state.get(TrialState.PRUNED, 0) - others["pruned"],
            failed=by_state.get(TrialState.FAIL, 0),
            running=by_state.get(TrialState.RUNNING, 0),
            waiting=by_state.get(TrialState.WAITING, 0) - paused,
            paused=paused,
        )


@dataclass(frozen=True)
class StateCount:
    """The trials of one study in one state, imported ones included.

    Attributes:
        count: How many there are.
        first_id: The lowest id among them.
    """

    count: int
    first_id: int


def count_trials(transaction: StudyTransaction) -> dict[TrialState, StateCount]:
    """Counts the study's trials by state, in one statement."""
    query = (
        sa.select(
            trials.c.state, sa.func.count().label("n"), sa.func.min(trials.c.trial_id).label("id")
        )
        .where(trials.c.study_id == transaction.study_id)
        .group_by(trials.c.state)
    )
    rows = transaction.connection.execute(query)
    return {row.state: StateCount(count=int(row.n), first_id=int(row.id)) for row in rows}


def seconds_left(attributes: Mapping[str, Any], now_s: float) -> float | None:
    """Returns the seconds until the study's time limit, negative after it; None without one."""
    end_s = attributes.get(TIME_LIMIT)
    return None if end_s is None else end_s - now_s


def why_stopped(attributes: Mapping[str, Any]) -> NoTrial | None:
    """Returns why a study gives out no trial whatever its budget; None if it does."""
    if attributes.get(STOPPED):
        return NoTrial.STOPPED
    return NoTrial.ASKED if attributes.get(STOP_ASKED) else None


def why_no_trial(
    counts: TrialCounts, attributes: Mapping[str, Any], now_s: float
) -> NoTrial | None:
    """Returns why no trial may be claimed; None if one may.

    Args:
        counts: The study's trials.
        attributes: The study's user attributes.
        now_s: The database's time in seconds since 1970.
    """
    if stopped := why_stopped(attributes):
        return stopped
    if TRAININGS_OF in attributes:
        return _why_no_listed_trial(counts, attributes, now_s)
    if counts.finished >= counts.budget:
        return NoTrial.DONE
    left_s = seconds_left(attributes, now_s)
    if left_s is not None and left_s <= 0:
        return NoTrial.TIME_UP
    if counts.finished + counts.running >= counts.budget:
        return NoTrial.WAIT
    return None


def _why_no_listed_trial(
    counts: TrialCounts, attributes: Mapping[str, Any], now_s: float
) -> NoTrial | None:
    """Returns the same for a list of trainings, to which a claim never adds a trial."""
    left_s = seconds_left(attributes, now_s)
    is_open = now_s < max(attributes.get(OPEN_UNTIL, {}).values(), default=0.0)
    if left_s is not None and left_s <= 0 and (counts.waiting or counts.running or is_open):
        return NoTrial.TIME_UP
    if counts.waiting:
        return None
    return NoTrial.WAIT if counts.running or is_open else NoTrial.DONE
