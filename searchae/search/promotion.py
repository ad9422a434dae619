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
"""User attribute of a trial: int, the step of the report after which it was paused. Absent or null
while it is not. A paused trial is WAITING."""


def is_paused(trial: FrozenTrial) -> bool:
    """Returns whether a trial is paused."""
    return trial.state == TrialState.WAITING and trial.user_attrs.get(PAUSED) is not None


def rung_steps(spec: StudySpec) -> tuple[int, ...]:
    """Returns the steps after which trials are compared, below that of a full training.

    A step is an epoch, or the share of one that ``search.first_report`` says.

    Args:
        spec: The study.
    """
    search = spec.search
    found, step = list[int](), search.first_rung
    while step < spec.epochs * search.reports_per_epoch:
        found.append(step)
        step *= search.reduction_factor
    return tuple(found)


class Rungs:
    """The rungs of one study, and what its trials reached there.

    Finished trials are read once. Of trials that are complete, the last PSNR counts on the rungs
    that they did not come to, since a plateau had ended them.

    Args:
        spec: The study.

    Attributes:
        steps: The rungs, each ``search.reduction_factor`` times the one before; see
            ``rung_steps``.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._factor = spec.search.reduction_factor
        self.steps = rung_steps(spec)
        self._cursor = FinishedTrialCursor()
        self._finished: dict[int, list[float]] = {step: [] for step in self.steps}  # ascending

    def goes_on(
        self, trials: Sequence[FrozenTrial], number: int, *, step: int, psnr_db: float
    ) -> bool:
        """Returns whether a running trial goes on after a report.

        Args:
            trials: All trials of the study by number.
            number: The trial's number.
            step: The step of the report.
            psnr_db: The validation PSNR in dB that it reported.
        """
        if step not in self._finished:
            return True
        others = [t for t in self._read(trials) if t.number != number]
        return self._is_among_best(psnr_db, step, others)

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
            step = trial.user_attrs[PAUSED]
            psnr_db = trial.intermediate_values.get(step)
            if psnr_db is None or step not in self._finished:  # the attribute is another program's
                continue
            others = [t for t in unfinished if t is not trial]
            if self._is_among_best(psnr_db, step, others):
                found.append((-step, -psnr_db, trial.number))
        return [number for _, _, number in sorted(found)]

    def leader(self, trials: Sequence[FrozenTrial]) -> list[int]:
        """Returns the paused trial that goes on when nothing else is left and none is complete.

        With many rungs a small budget promotes no trial to the last one. So that a search ends with
        one that is complete, the best of the highest rung goes on to its end.

        Args:
            trials: All trials of the study by number.

        Returns:
            Its number; none if none is paused.
        """
        found = [
            (-step, -_rank_value(t.intermediate_values[step]), t.number)
            for t in self._read(trials)
            if is_paused(t) and (step := t.user_attrs[PAUSED]) in t.intermediate_values
        ]
        return [number for _, _, number in sorted(found)[:1]]

    def _read(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Notes what newly finished trials reached; returns the unfinished ones."""
        finished, unfinished = self._cursor.read(trials)
        for number in finished:
            reports = trials[number].intermediate_values
            if not reports:
                continue
            is_complete = trials[number].state == TrialState.COMPLETE
            for step, reached in self._finished.items():
                value = reports.get(step, reports[max(reports)] if is_complete else None)
                if value is not None:
                    insort(reached, _rank_value(value))
        return [trials[number] for number in unfinished]

    def _is_among_best(self, psnr_db: float, step: int, others: Sequence[FrozenTrial]) -> bool:
        value, finished = _rank_value(psnr_db), self._finished[step]
        reached = [
            _rank_value(t.intermediate_values[step])
            for t in others
            if step in t.intermediate_values
        ]
        better = len(finished) - bisect_right(finished, value) + sum(v > value for v in reached)
        return better < (len(finished) + len(reached) + 1) // self._factor


def _rank_value(psnr_db: float) -> float:
    return -math.inf if math.isnan(psnr_db) else psnr_db
