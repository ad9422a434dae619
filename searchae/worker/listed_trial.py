"""Trials of a list of trainings: their parameters are given, not sampled."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial

from searchae.search import falls_behind
from searchae.study import RUNTIME, TRAINING, ListedTraining, StoredStudy


class ListedTrial:
    """Reports a listed training, and decides whether it is stopped early.

    Args:
        stored: The study that lists it.
        trial_id: The trial's id in the database.
        claimed: The trial as it was claimed.
        training: What it trains.
    """

    def __init__(
        self, stored: StoredStudy, trial_id: int, claimed: FrozenTrial, training: ListedTraining
    ) -> None:
        self.number = claimed.number
        self._stored, self._trial_id, self._training = stored, trial_id, training
        self._reports = dict(claimed.intermediate_values)

    def store_runtime(self, runtime: dict[str, Any]) -> None:
        """Stores what the trial is trained on.

        Raises:
            optuna.exceptions.UpdateFinishedTrialError: The trial has ended meanwhile.
        """
        self._stored.storage.set_trial_user_attr(self._trial_id, RUNTIME, runtime)

    def report(self, value: float, step: int) -> None:
        """Records the PSNR in dB after epoch ``step``."""
        self._stored.storage.set_trial_intermediate_value(self._trial_id, step, value)
        self._reports.setdefault(step, value)

    def should_prune(self) -> bool:
        """Returns whether the training fell too far behind its group; see ``falls_behind``."""
        if not self._training.is_pruned:
            return False
        trials = self._stored.study.get_trials(deepcopy=False)
        group = self._training.group
        others = (
            t.intermediate_values
            for t in trials
            if t.number != self.number and t.user_attrs.get(TRAINING, {}).get("group") == group
        )
        return falls_behind(self._reports, others, self._training.params.train.epochs)

    def should_pause(self) -> bool:
        """Returns False."""
        return False

    @property
    def last_value(self) -> float | None:
        """The PSNR in dB after the last epoch; None before the first."""
        return self._reports[max(self._reports)] if self._reports else None
