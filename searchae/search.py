"""Samplers and pruners by name, made anew for each trial.

A sampler's random numbers are derived from the study's seed and the trial's number, never from
the process: a search that is killed and gone on with samples what it would have sampled, and no
two workers draw the same numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.pruners import SuccessiveHalvingPruner as HalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.search_space.group_decomposed import (
    _GroupDecomposedSearchSpace,
    _SearchSpaceGroup,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.spec import Parameter, StudySpec, Value

Remembered = dict[tuple[str, ...], dict[int, "tuple[float, ...] | None"]]
"""What TPE has read of ended trials: names of parameters -> number -> their values, if any."""


def sampler(spec: StudySpec, *, number: int, remembered: Remembered | None = None) -> BaseSampler:
    """The study's sampler for one trial.

    Args:
        spec: The study.
        number: The trial's.
        remembered: Kept from trial to trial of one study, spares reading ended ones again.
    """
    seed = zlib.crc32(f"{spec.seed}/{number}".encode())
    startup = spec.search.startup_trials
    if spec.search.sampler == "random":
        return RandomSampler(seed=seed)
    if spec.search.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=False)
    # Conditional parameters split the space into groups; running trials count as bad ones, so
    # that workers do not all try the same place.
    made = _TPE(
        {} if remembered is None else remembered,
        seed=seed,
        n_startup_trials=startup,
        multivariate=True,
        group=True,
        constant_liar=True,
    )
    made._group_decomposed_search_space = _Groups(include_pruned=True)
    return made


class _TPE(TPESampler):
    """Optuna's own, which reads every trial anew each time; ended trials stay as they are."""

    def __init__(self, remembered: Remembered, **settings: Any) -> None:
        super().__init__(**settings)
        self._remembered = remembered

    def _get_internal_repr(
        self,
        trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
        study: optuna.Study,
    ) -> dict[str, npt.NDArray[Any]]:
        known = self._remembered.setdefault(tuple(search_space), {})
        found = []
        for trial in trials:
            number = trial.number
            if number in known:
                values = known[number]
            else:
                one = super()._get_internal_repr([trial], search_space, study).values()
                values = tuple(v.item() for v in one) if all(v.size for v in one) else None
                if trial.state.is_finished():
                    known[number] = values
            if values is not None:
                found.append(values)
        columns: Iterable[tuple[float, ...]] = (
            zip(*found, strict=True) if found else [()] * len(search_space)
        )
        return {n: np.asarray(c) for n, c in zip(search_space, columns, strict=True)}


class _Groups(_GroupDecomposedSearchSpace):
    """Optuna's own groups of parameters, found with less work.

    Parameters that were sampled together before split no group any further, so that of 10,000
    trials a handful has to be looked at.
    """

    def calculate(self, study: optuna.Study, use_cache: bool = False) -> _SearchSpaceGroup:
        """As Optuna's own; of complete and pruned trials."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        group, seen = _SearchSpaceGroup(), set()
        for trial in study._get_trials(deepcopy=False, states=states, use_cache=use_cache):
            names = frozenset(trial.distributions)
            if names not in seen:
                seen.add(names)
                group.add_distributions(trial.distributions)
        return group


class _Hyperband(HyperbandPruner):
    """Optuna's own, which works out every trial's bracket each time it is asked."""

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        self._brackets: dict[int, int] = {}

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        if not self._pruners:  # there are no brackets yet
            return super()._get_bracket_id(study, trial)
        if trial.number not in self._brackets:
            self._brackets[trial.number] = super()._get_bracket_id(study, trial)
        return self._brackets[trial.number]


def pruner(spec: StudySpec, study: optuna.Study) -> BasePruner:
    """The study's pruner, ready to be asked.

    Args:
        spec: The study.
        study: Optuna's handle on it.
    """
    search = spec.search
    if search.pruner == "none":
        return NopPruner()
    if search.pruner == "median":
        return MedianPruner(
            n_startup_trials=max(4, search.startup_trials // 2),
            n_warmup_steps=search.min_epochs,
        )
    if search.pruner == "successive-halving":
        return HalvingPruner(
            min_resource=search.min_epochs, reduction_factor=search.reduction_factor
        )
    made = _Hyperband(
        min_resource=search.min_epochs,
        max_resource=spec.epochs,
        reduction_factor=search.reduction_factor,
    )
    # Hyperband makes its brackets when it is first asked; before, its sampler sees all trials in
    # one. Asked about a trial without reports it answers no, and a new worker sees what others see.
    made.prune(study, create_trial(state=TrialState.WAITING))
    return made


def distribution(parameter: Parameter) -> BaseDistribution:
    """A searched parameter as Optuna describes it."""
    p = parameter
    if p.choices:
        return CategoricalDistribution(p.labels)
    if p.integer:
        return IntDistribution(int(p.low), int(p.high), log=p.log, step=int(p.step or 1))
    return FloatDistribution(p.low, p.high, log=p.log, step=p.step)


def contains(parameter: Parameter, label: Value) -> bool:
    """Whether a stored value is one that the parameter can take."""
    if parameter.choices:
        return label in parameter.labels
    described = distribution(parameter)
    return isinstance(label, int | float) and described._contains(described.to_internal_repr(label))


def why_nothing_is_pruned(spec: StudySpec) -> str:
    """The likeliest reason why many trials ended without one pruned."""
    search = spec.search
    if search.pruner == "none":
        return 'search.pruner is "none"'
    if spec.epochs <= search.min_epochs:
        return (
            f"train.epochs = {spec.epochs} leaves no rung after search.min_epochs = "
            f"{search.min_epochs} at which to compare"
        )
    ways = [f"search.min_epochs below {search.min_epochs}"] * (search.min_epochs > 1)
    if search.pruner == "median":
        ways.append('search.pruner = "successive-halving"')
    else:
        ways.append(f"search.reduction_factor above {search.reduction_factor}")
    return (
        f"no trial was worse than the {search.pruner} pruner's cut; {' or '.join(ways)} prunes more"
    )
