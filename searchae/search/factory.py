"""Samplers and pruners by name, made anew for each trial.

A sampler's random numbers are derived from the study's seed and the trial's number, never from
the process: a search that is killed and gone on with samples what it would have sampled, and no
two workers draw the same numbers.
"""

from __future__ import annotations

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import TrialState, create_trial

from searchae.config import Parameter, StudySpec, Value, sampler_seed
from searchae.search.incremental import (
    IncrementalHyperbandPruner,
    IncrementalSuccessiveHalvingPruner,
    IncrementalTPESampler,
    TrialHistory,
)


def make_sampler(
    spec: StudySpec, *, number: int, memory: TrialHistory | None = None
) -> BaseSampler:
    """The study's sampler for one trial.

    Args:
        spec: The study.
        number: The trial's.
        memory: Kept from trial to trial of one study, spares reading ended ones again.
    """
    seed = sampler_seed(spec.seed, number)
    startup = spec.search.startup_trials
    if spec.search.sampler == "random":
        return RandomSampler(seed=seed)
    if spec.search.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=False)
    # Conditional parameters split the space into groups; running trials count as bad ones, so
    # that workers do not all try the same place.
    return IncrementalTPESampler(memory or TrialHistory(), seed=seed, n_startup_trials=startup)


def make_pruner(spec: StudySpec, study: optuna.Study) -> BasePruner:
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
        return IncrementalSuccessiveHalvingPruner(
            min_resource=search.min_epochs, reduction_factor=search.reduction_factor
        )
    made = IncrementalHyperbandPruner(
        min_resource=search.min_epochs,
        max_resource=spec.epochs,
        reduction_factor=search.reduction_factor,
    )
    # Hyperband makes its brackets when it is first asked; before, its sampler sees all trials in
    # one. Asked about a trial without reports it answers no, and a new worker sees what others see.
    made.prune(study, create_trial(state=TrialState.WAITING))
    return made


def to_distribution(parameter: Parameter) -> BaseDistribution:
    """A searched parameter as Optuna describes it."""
    p = parameter
    if p.choices:
        return CategoricalDistribution(p.labels)
    if p.integer:
        return IntDistribution(int(p.low), int(p.high), log=p.log, step=int(p.step or 1))
    return FloatDistribution(p.low, p.high, log=p.log, step=p.step)


def can_take(parameter: Parameter, label: Value) -> bool:
    """Whether a stored value is one that the parameter can take."""
    if parameter.choices:
        return label in parameter.labels
    described = to_distribution(parameter)
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
