"""Asynchronous successive halving with promotion (ASHA).

A trial that is not among the best of its rung is paused, not ended: it goes on once it is one of
them. So no trial is trained to its end before there are others to compare it with, and an early
rank is not final. Algorithm 2 of L. Li et al., "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from searchae.config import StudySpec
from searchae.search.tpe_history import FinishedTrialCursor

PAUSED = "searchae:paused"
"""User attribute of a trial: int, the epoch after which it was paused. Absent, or null, while it is
not. A paused trial is WAITING."""


def is_paused(trial: FrozenTrial) -> bool:
    """Returns whether a trial is paused."""
    return trial.state == TrialState.WAITING and trial.user_attrs.get(PAUSED) is not None


def rung_epochs(min_epochs: int, reduction_factor: int, epochs: int) -> tuple[int, ...]:
    """Returns the epochs after which trials are compared, below the epochs of a full training.

    Args:
        min_epochs: The first rung.
        reduction_factor: How many times the one before each further rung is.
        epochs: Epochs of a full training.
    """
    found, epoch = list[int](), min_epochs
    while epoch < epochs:
        found.append(epoch)
        epoch *= reduction_factor
    return tuple(found)


class Rungs:
    """The rungs of one study, and what its trials reached there.

    Finished trials are read once. Of trials that are complete, the last PSNR counts on the rungs
    that they did not come to, since a plateau had ended them.

    Args:
        spec: The study.

    Attributes:
        epochs: The rungs, each ``search.reduction_factor`` times the one before; the first is
            ``search.min_epochs``.
    """

    def __init__(self, spec: StudySpec) -> None:
        search = spec.search
        self._factor = search.reduction_factor
        epochs = rung_epochs(search.min_epochs, self._factor, spec.epochs)
        self.epochs = epochs
        self._cursor = FinishedTrialCursor()
        self._finished: dict[int, list[float]] = {epoch: [] for epoch in epochs}  # ascending

    def goes_on(
        self, trials: Sequence[FrozenTrial], number: int, *, epoch: int, psnr_db: float
    ) -> bool:
        """Returns whether a running trial goes on after an epoch.

        Args:
            trials: All trials of the study by number.
            number: The trial's number.
            epoch: The epoch that it has just trained.
            psnr_db: Its validation PSNR in dB after that epoch.
        """
        if epoch not in self._finished:
            return True
        others = [t for t in self._read(trials) if t.number != number]
        return self._is_among_best(psnr_db, epoch, others)

    def promotable(self, trials: Sequence[FrozenTrial]) -> list[int]:
        """Returns the paused trials that may go on now.

        Args:
            trials: All trials of the study by number.

        Returns:
            Their numbers: the highest rung first, and on a rung the best first.
        """
        unfinished = self._read(trials)
        found = []
        for trial in filter(is_paused, unfinished):
            epoch = trial.user_attrs[PAUSED]
            psnr_db = trial.intermediate_values.get(epoch)
            if psnr_db is None or epoch not in self._finished:  # the attribute is another program's
                continue
            others = [t for t in unfinished if t is not trial]
            if self._is_among_best(psnr_db, epoch, others):
                found.append((-epoch, -psnr_db, trial.number))
        return [number for _, _, number in sorted(found)]

    def _read(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Notes what newly finished trials reached; returns the unfinished ones."""
        finished, unfinished = self._cursor.read(trials)
        for number in finished:
            reports = trials[number].intermediate_values
            if not reports:
                continue
            is_complete = trials[number].state == TrialState.COMPLETE
            for epoch, reached in self._finished.items():
                value = reports.get(epoch, reports[max(reports)] if is_complete else None)
                if value is not None:
                    insort(reached, _rank_value(value))
        return [trials[number] for number in unfinished]

    def _is_among_best(self, psnr_db: float, epoch: int, others: Sequence[FrozenTrial]) -> bool:
        value, finished = _rank_value(psnr_db), self._finished[epoch]
        reached = [
            _rank_value(t.intermediate_values[epoch])
            for t in others
            if epoch in t.intermediate_values
        ]
        better = len(finished) - bisect_right(finished, value) + sum(v > value for v in reached)
        return better < (len(finished) + len(reached) + 1) // self._factor


def _rank_value(psnr_db: float) -> float:
    return -math.inf if math.isnan(psnr_db) else psnr_db
