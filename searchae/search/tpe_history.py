"""What has been read of a study's trials, kept from one sampled trial to the next.

Finished trials do not change, and trials are numbered consecutively, so that each finished trial
needs to be read only once.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

_COUNTED = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING}


class FinishedTrialCursor:
    """A position in a study's trials, up to which the finished ones have been read."""

    def __init__(self) -> None:
        self._count = 0
        self._unfinished: list[int] = []

    def read(self, trials: Sequence[FrozenTrial]) -> tuple[list[int], list[int]]:
        """Moves on to the trials that have finished since the last call.

        Args:
            trials: All trials of the study by number.

        Returns:
            The numbers of the newly finished trials, and those of all unfinished ones.
        """
        candidates = [*self._unfinished, *range(self._count, len(trials))]
        self._count = len(trials)
        self._unfinished = [i for i in candidates if not trials[i].state.is_finished()]
        unfinished = set(self._unfinished)
        return [i for i in candidates if i not in unfinished], self._unfinished


class TrialHistory:
    """What TPE needs of the finished trials of a study whose one objective is maximised.

    Attributes:
        ranking: (score, number) of each complete or pruned trial, the best first, in the order of
            ``TPESampler``: complete trials by value, then pruned ones by their last step and its
            value; of equal trials the one with the lowest number first.
        first: Set of parameter names -> the first of these trials that has exactly those.
        tables: Parameter names -> their values in all trials.
    """

    def __init__(self) -> None:
        self.ranking: list[tuple[tuple[float, ...], int]] = []
        self.first: dict[frozenset[str], int] = {}
        self.tables: dict[tuple[str, ...], ParameterTable] = defaultdict(ParameterTable)
        self._cursor = FinishedTrialCursor()

    def read(self, trials: Sequence[FrozenTrial]) -> None:
        """Adds the trials that have finished since the last call.

        Args:
            trials: All trials of the study by number.
        """
        finished, _ = self._cursor.read(trials)
        for number in finished:
            trial = trials[number]
            if trial.state == TrialState.COMPLETE:
                score: tuple[float, ...] = (0.0, *(-value for value in trial.values or ()))
            elif trial.state == TrialState.PRUNED:
                score = (1.0, *_pruned_score(trial))
            else:
                continue
            insort(self.ranking, (score, number))
            names = frozenset(trial.distributions)
            self.first[names] = min(number, self.first.get(names, number))


def _pruned_score(trial: FrozenTrial) -> tuple[float, float]:
    """Returns what ``TPESampler`` orders pruned trials by: later steps, then larger values."""
    if not trial.intermediate_values:
        return 1, 0.0
    step, value = max(trial.intermediate_values.items())
    return -step, math.inf if math.isnan(value) else -value


class ParameterTable:
    """The values of some parameters by trial number, of the trials that have all of them."""

    def __init__(self) -> None:
        self._cursor = FinishedTrialCursor()
        self._rows: npt.NDArray[np.float64] = np.empty((0, 0))
        self._has: npt.NDArray[np.bool_] = np.empty(0, bool)

    def read(
        self, trials: Sequence[FrozenTrial], values: Callable[[FrozenTrial], list[float]]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Adds the trials that have finished or started since the last call.

        Args:
            trials: All trials of the study by number.
            values: Returns the parameters' values in a trial; an empty list if it lacks one.

        Returns:
            The values, float64 (trials, parameters), and whether a row is in use, bool (trials,):
            the trial is COMPLETE, PRUNED or RUNNING and has all of the parameters.
        """
        finished, unfinished = self._cursor.read(trials)
        for number in (*finished, *unfinished):
            if trials[number].state in _COUNTED and (found := values(trials[number])):
                self._grow(len(trials), len(found))
                self._rows[number] = found
                self._has[number] = True
        self._grow(len(trials), self._rows.shape[1])
        rows, has = self._rows[: len(trials)], self._has[: len(trials)].copy()
        self._has[unfinished] = False  # they are read again: they may fail, or be put back
        return rows, has

    def _grow(self, trials: int, parameters: int) -> None:
        if len(self._rows) < trials or self._rows.shape[1] != parameters:
            rows, has = np.zeros((2 * trials, parameters)), np.zeros(2 * trials, bool)
            rows[: len(self._rows), : self._rows.shape[1]] = self._rows
            has[: len(self._has)] = self._has
            self._rows, self._has = rows, has
