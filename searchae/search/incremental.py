"""Optuna's sampler and pruners with the same results and less work in studies of 10,000 trials.

Optuna's own look through all trials each time that they are asked. Trials that have ended stay as
they are, and numbers are given one after the other, so that here each is read once. Tests hold
sampler and pruners against Optuna's own.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _get_pruned_trial_score, default_gamma
from optuna.search_space.group_decomposed import (
    _GroupDecomposedSearchSpace,
    _SearchSpaceGroup,
)
from optuna.trial import FrozenTrial, TrialState

_RUNG = "completed_rung_"


class FinishedTrialCursor:
    """How far a study's trials, in the order of their numbers, have been read."""

    def __init__(self) -> None:
        self._seen = 0
        self._unfinished: list[int] = []

    def read(self, trials: Sequence[FrozenTrial]) -> tuple[list[int], list[int]]:
        """The numbers of those that have ended since the last call, and of the unfinished."""
        new = [*self._unfinished, *range(self._seen, len(trials))]
        self._seen = len(trials)
        self._unfinished = [i for i in new if not trials[i].state.is_finished()]
        unfinished = set(self._unfinished)
        return [i for i in new if i not in unfinished], self._unfinished


class TrialHistory:
    """What TPE has read of a study's trials. Numbers are those of trials.

    Attributes:
        order: (score, number) of each complete or pruned trial, the best first: complete ones by
            value, then pruned ones by how far they came and by value; the first among equals.
        first: Names of parameters -> the first of these trials that has just them.
        tables: Names of parameters -> their values.
    """

    def __init__(self) -> None:
        self.order: list[tuple[tuple[float, ...], int]] = []
        self.first: dict[frozenset[str], int] = {}
        self.tables: dict[tuple[str, ...], ParameterTable] = defaultdict(ParameterTable)
        self._progress = FinishedTrialCursor()

    def read(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        """Reads what has ended since the last time."""
        ended, _ = self._progress.read(trials)
        for number in ended:
            trial = trials[number]
            if trial.state == TrialState.COMPLETE:
                score: tuple[float, ...] = (0.0, *(-value for value in trial.values or ()))
            elif trial.state == TrialState.PRUNED:
                score = (1.0, *_get_pruned_trial_score(trial, study))
            else:
                continue
            insort(self.order, (score, number))
            names = frozenset(trial.distributions)
            self.first[names] = min(number, self.first.get(names, number))


class ParameterTable:
    """The values of some parameters by the numbers of the trials that have them all."""

    def __init__(self) -> None:
        self._progress = FinishedTrialCursor()
        self._rows: npt.NDArray[np.float64] = np.empty((0, 0))
        self._has: npt.NDArray[np.bool_] = np.empty(0, bool)

    def read(
        self, trials: Sequence[FrozenTrial], values: Callable[[FrozenTrial], list[float]]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Reads what has ended or begun since the last time.

        Args:
            trials: All.
            values: The parameters' values of a trial; none if it lacks one.

        Returns:
            A row of values for each trial, float64 (trials, parameters), and whether it counts,
            bool (trials,): it is complete, was pruned or runs, and has them.
        """
        ended, unfinished = self._progress.read(trials)
        for number in (*ended, *unfinished):
            if trials[number].state in _COUNT and (found := values(trials[number])):
                self._grow(len(trials), len(found))
                self._rows[number] = found
                self._has[number] = True
        self._grow(len(trials), self._rows.shape[1])
        rows, has = self._rows[: len(trials)], self._has[: len(trials)].copy()
        self._has[unfinished] = False  # read anew the next time: they may fail, or wait
        return rows, has

    def _grow(self, trials: int, parameters: int) -> None:
        if len(self._rows) < trials or self._rows.shape[1] != parameters:
            rows, has = np.zeros((2 * trials, parameters)), np.zeros(2 * trials, bool)
            rows[: len(self._rows), : self._rows.shape[1]] = self._rows
            has[: len(self._has)] = self._has
            self._rows, self._has = rows, has


_COUNT = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING}


class IncrementalTPESampler(TPESampler):
    """Optuna's TPE, grouped and multivariate, that takes running trials for bad ones.

    Of one objective that is to be maximised, without constraints.

    Args:
        memory: Of this study, from trial to trial.
        settings: Of ``TPESampler``.
    """

    def __init__(self, memory: TrialHistory, **settings: Any) -> None:
        super().__init__(multivariate=True, group=True, constant_liar=True, **settings)
        self._memory = memory
        self._group_decomposed_search_space = IncrementalSearchSpace(memory)

    def _sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        trials = study._get_trials(deepcopy=False, use_cache=True)
        self._memory.read(study, trials)
        if not search_space or len(self._memory.order) < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        def values(one: FrozenTrial) -> list[float]:
            found = self._get_internal_repr([one], search_space, study).values()
            return [float(column[0]) for column in found if len(column)]

        trials = study._get_trials(deepcopy=False, use_cache=True)
        self._memory.read(study, trials)
        rows, has = self._memory.tables[tuple(search_space)].read(trials, values)
        order = self._memory.order
        best = np.zeros(len(trials), bool)
        best[[n for _, n in order[: (self._gamma or default_gamma)(len(order))]]] = True
        has[trial.number : trial.number + 1] = False
        good = self._estimator(search_space, rows[has & best])
        rest = self._estimator(search_space, rows[has & ~best])
        candidates = good.sample(self._rng.rng, self._n_ei_candidates)
        gains = self._compute_acquisition_func(candidates, good, rest)
        chosen = self._compare(candidates, gains)
        return {name: d.to_external_repr(chosen[name]) for name, d in search_space.items()}

    def _estimator(
        self, search_space: dict[str, BaseDistribution], rows: npt.NDArray[np.float64]
    ) -> Any:
        # Without a trial that has them there are no columns yet.
        columns = dict(zip(search_space, rows.T, strict=False))
        return self._parzen_estimator_cls(
            {name: columns.get(name, np.empty(0)) for name in search_space},
            search_space,
            self._parzen_estimator_parameters,
        )


class IncrementalSearchSpace(_GroupDecomposedSearchSpace):
    """Optuna's groups of parameters that are sampled together, of complete and pruned trials.

    Parameters that were sampled together before split no group any further, so that of 10,000
    trials a handful has to be looked at.
    """

    def __init__(self, memory: TrialHistory) -> None:
        super().__init__(include_pruned=True)
        self._memory = memory

    def calculate(self, study: optuna.Study, use_cache: bool = False) -> _SearchSpaceGroup:
        """As Optuna's own."""
        trials = study._get_trials(deepcopy=False, use_cache=use_cache)
        self._memory.read(study, trials)
        group = _SearchSpaceGroup()
        for number in sorted(self._memory.first.values()):
            group.add_distributions(trials[number].distributions)
        return group


class IncrementalSuccessiveHalvingPruner(SuccessiveHalvingPruner):
    """Optuna's successive halving, of a value to be maximised."""

    def __init__(self, *, min_resource: int, reduction_factor: int) -> None:
        super().__init__(min_resource=min_resource, reduction_factor=reduction_factor)
        self._first, self._factor = min_resource, reduction_factor
        self._progress = FinishedTrialCursor()
        self._ended: dict[str, list[float]] = defaultdict(list)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial is not among the best at a rung that it has come to."""
        step = trial.last_step
        if step is None:
            return False
        value, rung = trial.intermediate_values[step], 0
        while f"{_RUNG}{rung}" in trial.system_attrs:
            rung += 1
        others: list[FrozenTrial] | None = None
        while step >= self._first * self._factor**rung:
            if math.isnan(value):
                return True
            if others is None:
                others = self._unfinished(study)
            study._storage.set_trial_system_attr(trial._trial_id, f"{_RUNG}{rung}", value)
            if not self._is_among_the_best(value, f"{_RUNG}{rung}", others):
                return True
            rung += 1
        return False

    def _unfinished(self, study: optuna.Study) -> list[FrozenTrial]:
        """The trials that may still come to a rung; reads the rungs of those that have ended."""
        trials = study.get_trials(deepcopy=False)
        ended, unfinished = self._progress.read(trials)
        for number in ended:
            for key, value in trials[number].system_attrs.items():
                if key.startswith(_RUNG):
                    insort(self._ended[key], value)
        return [trials[number] for number in unfinished]

    def _is_among_the_best(self, value: float, rung: str, others: list[FrozenTrial]) -> bool:
        ended = self._ended[rung]
        running = [t.system_attrs[rung] for t in others if rung in t.system_attrs]
        better: int = len(ended) - bisect_right(ended, value) + sum(v > value for v in running)
        count: int = len(ended) + len(running) + 1
        return better < max(1, count // self._factor)


class IncrementalHyperbandPruner(HyperbandPruner):
    """Optuna's Hyperband, which works out every trial's bracket each time it is asked."""

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        self._brackets: dict[int, int] = {}

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        if not self._pruners:  # there are no brackets yet
            return super()._get_bracket_id(study, trial)
        if trial.number not in self._brackets:
            self._brackets[trial.number] = super()._get_bracket_id(study, trial)
        return self._brackets[trial.number]
