"""Optuna's TPE sampler and pruners with the same results and less work in large studies.

Optuna's own look through all trials of a study each time. Here each finished trial is read once:
see ``tpe_history``. Tests compare sampler and pruners with Optuna's own.

This module uses private names of Optuna's. It is imported only where ``check_sampler`` or
``check_pruners`` decides whether they are as expected.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import default_gamma
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace, _SearchSpaceGroup
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.search.tpe_history import FinishedTrialCursor, TrialHistory
from searchae.storage import require_signature

_RUNG = "completed_rung_"


class IncrementalTPESampler(TPESampler):
    """Optuna's multivariate TPE with groups and constant liar, for a study that is maximised.

    The study has one objective and no constraints.

    Args:
        history: What has been read of this study; kept from trial to trial.
        settings: Further arguments of ``TPESampler``.
    """

    def __init__(self, history: TrialHistory, **settings: Any) -> None:
        super().__init__(multivariate=True, group=True, constant_liar=True, **settings)
        self._history = history
        self._group_decomposed_search_space = IncrementalSearchSpace(history)

    def _sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._history.read(study._get_trials(deepcopy=False, use_cache=True))
        if not search_space or len(self._history.ranking) < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        def values(one: FrozenTrial) -> list[float]:
            columns = self._get_internal_repr([one], search_space, study).values()
            return [float(column[0]) for column in columns if len(column)]

        trials = study._get_trials(deepcopy=False, use_cache=True)
        self._history.read(trials)
        rows, has = self._history.tables[tuple(search_space)].read(trials, values)
        ranking = self._history.ranking
        below = np.zeros(len(trials), bool)
        below[[n for _, n in ranking[: (self._gamma or default_gamma)(len(ranking))]]] = True
        has[trial.number : trial.number + 1] = False
        mpe_below = self._parzen_estimator(search_space, rows[has & below])
        mpe_above = self._parzen_estimator(search_space, rows[has & ~below])
        samples = mpe_below.sample(self._rng.rng, self._n_ei_candidates)
        acquisition = self._compute_acquisition_func(samples, mpe_below, mpe_above)
        chosen = self._compare(samples, acquisition)
        return {name: d.to_external_repr(chosen[name]) for name, d in search_space.items()}

    def _parzen_estimator(
        self, search_space: dict[str, BaseDistribution], rows: npt.NDArray[np.float64]
    ) -> Any:
        # There are no columns before the first trial that has all parameters.
        columns = dict(zip(search_space, rows.T, strict=False))
        return self._parzen_estimator_cls(
            {name: columns.get(name, np.empty(0)) for name in search_space},
            search_space,
            self._parzen_estimator_parameters,
        )


class IncrementalSearchSpace(_GroupDecomposedSearchSpace):
    """Optuna's groups of jointly sampled parameters, of complete and pruned trials.

    A trial with the same parameters as an earlier one splits no group any further, so that of
    10,000 trials only a handful has to be looked at.

    Args:
        history: What has been read of the study.
    """

    def __init__(self, history: TrialHistory) -> None:
        super().__init__(include_pruned=True)
        self._history = history

    def calculate(self, study: optuna.Study, use_cache: bool = False) -> _SearchSpaceGroup:
        """Returns the groups of the study's trials, as the parent class does."""
        trials = study._get_trials(deepcopy=False, use_cache=use_cache)
        self._history.read(trials)
        group = _SearchSpaceGroup()
        for number in sorted(self._history.first.values()):
            group.add_distributions(trials[number].distributions)
        return group


class IncrementalSuccessiveHalvingPruner(SuccessiveHalvingPruner):
    """Optuna's successive halving for a study that is maximised.

    Args:
        min_resource: The epoch of the first rung.
        reduction_factor: One of so many trials passes a rung.
    """

    def __init__(self, *, min_resource: int, reduction_factor: int) -> None:
        super().__init__(min_resource=min_resource, reduction_factor=reduction_factor)
        self._first_rung, self._factor = min_resource, reduction_factor
        self._cursor = FinishedTrialCursor()
        self._finished: dict[str, list[float]] = defaultdict(list)  # rung -> sorted values

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Returns whether the trial has reached a rung and is not among the best there."""
        step = trial.last_step
        if step is None:
            return False
        value, rung = trial.intermediate_values[step], 0
        while f"{_RUNG}{rung}" in trial.system_attrs:
            rung += 1
        others: list[FrozenTrial] | None = None
        while step >= self._first_rung * self._factor**rung:
            if math.isnan(value):
                return True
            if others is None:
                others = self._read_trials(study)
            study._storage.set_trial_system_attr(trial._trial_id, f"{_RUNG}{rung}", value)
            if not self._is_among_best(value, f"{_RUNG}{rung}", others):
                return True
            rung += 1
        return False

    def _read_trials(self, study: optuna.Study) -> list[FrozenTrial]:
        """Notes the rungs of newly finished trials, and returns the unfinished trials."""
        trials = study.get_trials(deepcopy=False)
        finished, unfinished = self._cursor.read(trials)
        for number in finished:
            for key, value in trials[number].system_attrs.items():
                if key.startswith(_RUNG):
                    insort(self._finished[key], value)
        return [trials[number] for number in unfinished]

    def _is_among_best(self, value: float, rung: str, unfinished: list[FrozenTrial]) -> bool:
        finished = self._finished[rung]
        others = [t.system_attrs[rung] for t in unfinished if rung in t.system_attrs]
        better: int = len(finished) - bisect_right(finished, value) + sum(v > value for v in others)
        count: int = len(finished) + len(others) + 1
        return better < max(1, count // self._factor)


class IncrementalHyperbandPruner(HyperbandPruner):
    """Optuna's Hyperband with each trial's bracket computed once.

    Args:
        settings: Arguments of ``HyperbandPruner``.
    """

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        self._brackets: dict[int, int] = {}

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        if not self._pruners:  # there are no brackets yet
            return super()._get_bracket_id(study, trial)
        if trial.number not in self._brackets:
            self._brackets[trial.number] = super()._get_bracket_id(study, trial)
        return self._brackets[trial.number]


# -- self-checks


def check_sampler() -> None:
    """Checks that the sampler proposes what Optuna's own does.

    Raises:
        Exception: It does not, or private names are not as expected.
    """
    space = ["search_space"]
    require_signature(TPESampler._get_internal_repr, ["self", "trials", *space, "study"])
    require_signature(TPESampler._sample, ["self", "study", "trial", *space])
    require_signature(TPESampler._sample_relative, ["self", "study", "trial", *space])
    require_signature(_GroupDecomposedSearchSpace.calculate, ["self", "study", "use_cache"])
    settings: dict[str, Any] = {"seed": 1, "n_startup_trials": 2}
    study = _small_study()
    trial = study.get_trials(deepcopy=False)[-1]
    proposals = []
    for sampler in (
        TPESampler(multivariate=True, group=True, constant_liar=True, **settings),
        IncrementalTPESampler(TrialHistory(), **settings),
    ):
        described = sampler.infer_relative_search_space(study, trial)
        proposals.append(sampler.sample_relative(study, trial, described))
    if not proposals[0] or proposals[0] != proposals[1]:
        raise RuntimeError("TPESampler proposes other values")


def check_pruners() -> None:
    """Checks that the pruners decide what Optuna's own do.

    Raises:
        Exception: They do not, or private names are not as expected.
    """
    require_signature(HyperbandPruner._get_bracket_id, ["self", "study", "trial"])
    halving: dict[str, int] = {"min_resource": 1, "reduction_factor": 2}
    for settings, pruners in (
        (halving, (SuccessiveHalvingPruner, IncrementalSuccessiveHalvingPruner)),
        ({**halving, "max_resource": 4}, (HyperbandPruner, IncrementalHyperbandPruner)),
    ):
        decisions: list[list[object]] = []
        for pruner in pruners:
            study, made = _small_study(), pruner(**settings)
            running = study.get_trials(states=[TrialState.RUNNING])
            decisions.append([made.prune(study, t) for t in running])
            decisions[-1] += [t.system_attrs for t in study.get_trials()]
        if decisions[0] != decisions[1]:
            raise RuntimeError(f"{pruners[0].__name__} decides otherwise")


def _small_study() -> optuna.Study:
    """Returns a study in memory with trials of every kind, the last ones running."""
    storage, verbosity = InMemoryStorage(), optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a new study is logged
    storage.create_new_study([StudyDirection.MAXIMIZE], "check")
    optuna.logging.set_verbosity(verbosity)
    study = optuna.study.Study("check", storage)
    space = {"a": FloatDistribution(1e-3, 1.0, log=True), "b": FloatDistribution(0.0, 1.0)}
    states = [TrialState.COMPLETE] * 6 + [TrialState.PRUNED] * 2 + [TrialState.RUNNING] * 3
    for i, state in enumerate(states):
        names = ["a"] if i % 3 == 0 else ["a", "b"]
        study.add_trial(
            create_trial(
                state=state,
                value=None if state != TrialState.COMPLETE else float(i),
                params=dict.fromkeys(names, 0.1 + i / 20),
                distributions={name: space[name] for name in names},
                intermediate_values={1: float(i % 4), 2: float(i % 5)},
                system_attrs={"completed_rung_0": float(i % 4)} if state.is_finished() else {},
            )
        )
    return study
