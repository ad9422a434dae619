"""Estimates how long a study that is being worked on still takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from searchae.config import StudySpec
from searchae.study.budget import TrialCounts

EXPECTED_TRIALS = 4
"""The epochs that are expected before any trial has run count as those of this many trials."""


@dataclass(frozen=True)
class RunningTrials:
    """What the running trials that have trained an epoch have done so far.

    Attributes:
        epochs: Epochs that they have trained.
        seconds: Time since they were started, the time between two workers included.
    """

    epochs: float = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial], spec: StudySpec) -> RunningTrials:
        """Returns what the running ones of a study's trials have done."""
        now, epochs, seconds = datetime.now(), 0.0, 0.0
        for trial in trials:
            begun = trial.datetime_start
            if trial.state == TrialState.RUNNING and trial.intermediate_values and begun:
                epochs += spec.search.epochs_at(max(trial.intermediate_values))
                seconds += max((now - begun).total_seconds(), 0.0)
        return cls(epochs, seconds)


def time_to_go_s(
    counts: TrialCounts,
    finished: Sequence[tuple[float, float]],
    running: RunningTrials,
    *,
    workers: int,
    expected_epochs: float,
) -> float | None:
    """Estimates the seconds until the budget is spent; None if there is nothing to go by.

    Args:
        counts: The study's trials.
        finished: Epochs and seconds of the trials that count towards the budget.
        running: The running trials.
        workers: How many workers are alive.
        expected_epochs: Epochs of a trial as expected before any has run.
    """
    left = counts.budget - counts.finished
    epochs, took_s = sum(e for e, _ in finished), sum(s for _, s in finished)
    # Running trials may have waited for a worker for long: they count only without others.
    epoch_s = _ratio(took_s, epochs) or _ratio(running.seconds, running.epochs)
    if left <= 0 or not workers or epoch_s is None:
        return None
    # Pruned trials end first, so the mean of finished trials alone is too low: the epochs of the
    # running trials so far are added, as in the mean of right-censored durations.
    known = epochs + running.epochs if finished else 0
    mean = (EXPECTED_TRIALS * expected_epochs + known) / (EXPECTED_TRIALS + len(finished))
    # On average a running trial is half done; workers idle while the last round ends.
    rounds = -(-(left - counts.running / 2) // workers)
    return epoch_s * mean * max(rounds, 0.5)


def _ratio(seconds: float, epochs: float) -> float | None:
    return seconds / epochs if epochs else None
