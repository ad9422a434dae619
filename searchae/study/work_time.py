"""How long a study was worked on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState

from searchae.study.epoch_history import history_columns

PUT_BACK_S = 60.0
"""A trial that took so much longer than its epochs has been put back in between."""


def wall_seconds(
    trials: Sequence[FrozenTrial], *, now: datetime, worked_for_s: float | None
) -> float:
    """Returns the seconds in which at least one trial was worked on; pauses do not count.

    Args:
        trials: The study's own trials.
        now: The time, local and without a zone, as Optuna has its times.
        worked_for_s: For how long the longest-lived worker has been there; None without a worker.
            A running trial may have been begun, and put back, before.
    """
    intervals = []
    for trial in trials:
        begin, end = trial.datetime_start, trial.datetime_complete
        if begin is None:
            continue
        if end is not None:
            trained = history_columns(trial.user_attrs).get("seconds")
            if trained and (end - begin).total_seconds() > sum(trained) + PUT_BACK_S:
                begin = end - timedelta(seconds=sum(trained))
            intervals.append((begin, end))
        elif trial.state == TrialState.RUNNING and worked_for_s is not None:
            intervals.append((max(begin, now - timedelta(seconds=worked_for_s)), now))
    total, counted_to = timedelta(), datetime.min
    for begin, end in sorted(intervals):
        total += max(timedelta(), end - max(begin, counted_to))
        counted_to = max(counted_to, end)
    return total.total_seconds()
