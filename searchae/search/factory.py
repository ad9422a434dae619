"""Makes samplers and pruners by the names of a study file.

A sampler is made for each trial. Its random numbers are derived from the study's seed and the
trial's number, never from the process: a search that is killed and resumed samples what it would
have sampled, and no two workers draw the same numbers.
"""

from __future__ import annotations

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from searchae.config import Parameter, StudySpec, Value, sampler_seed
from searchae.search.history import TrialHistory
from searchae.storage import is_usable

INCREMENTAL_FROM = 1000
"""The number of the first trial that the incremental TPE sampler is used for. Both samplers propose
the same; with fewer trials Optuna's own takes well under 0.1 s."""


def make_sampler(
    spec: StudySpec, *, number: int, history: TrialHistory | None = None
) -> BaseSampler:
    """Returns the study's sampler for one trial.

    Args:
        spec: The study.
        number: The trial's number.
        history: What has been read of the study's trials, kept from trial to trial, so that in a
            large study finished trials are not read again.
    """
    seed = sampler_seed(spec.seed, number)
    startup = spec.search.startup_trials
    if spec.search.sampler == "random":
        return RandomSampler(seed=seed)
    if spec.search.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=False)
    if number >= INCREMENTAL_FROM and is_usable(
        "incremental sampler", _check_sampler, instead="its own TPE sampler"
    ):
        from searchae.search.incremental import IncrementalTPESampler

        return IncrementalTPESampler(history or TrialHistory(), seed=seed, n_startup_trials=startup)
    # Conditional parameters split the space into groups; running trials count as bad ones, so
    # that workers do not all try the same place.
    return TPESampler(
        multivariate=True, group=True, constant_liar=True, seed=seed, n_startup_trials=startup
    )


def make_pruner(spec: StudySpec, study: optuna.Study) -> BasePruner:
    """Returns the study's pruner, ready to be used by samplers and trials.

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
    halving: type[SuccessiveHalvingPruner] = SuccessiveHalvingPruner
    hyperband: type[HyperbandPruner] = HyperbandPruner
    if is_usable("incremental pruners", _check_pruners, instead="its own pruners"):
        from searchae.search import incremental

        halving = incremental.IncrementalSuccessiveHalvingPruner
        hyperband = incremental.IncrementalHyperbandPruner
    if search.pruner == "successive-halving":
        return halving(min_resource=search.min_epochs, reduction_factor=search.reduction_factor)
    pruner = hyperband(
        min_resource=search.min_epochs,
        max_resource=spec.epochs,
        reduction_factor=search.reduction_factor,
    )
    # Hyperband creates its brackets when it is first asked; until then a sampler sees the trials of
    # all brackets. Asked about a trial without reports, it creates them and prunes nothing.
    pruner.prune(study, create_trial(state=TrialState.WAITING))
    return pruner


def _check_sampler() -> None:
    from searchae.search.incremental import check_sampler

    check_sampler()


def _check_pruners() -> None:
    from searchae.search.incremental import check_pruners

    check_pruners()


def to_distribution(parameter: Parameter) -> BaseDistribution:
    """Returns the distribution of a searched parameter."""
    p = parameter
    if p.choices:
        return CategoricalDistribution(p.labels)
    if p.integer:
        return IntDistribution(int(p.low), int(p.high), log=p.log, step=int(p.step or 1))
    return FloatDistribution(p.low, p.high, log=p.log, step=p.step)


def can_take(parameter: Parameter, label: Value) -> bool:
    """Tells whether a stored value is one that the parameter can take.

    Args:
        parameter: A searched parameter.
        label: A number, or one of the labels of a choice.
    """
    if parameter.choices:
        return label in parameter.labels
    if not isinstance(label, int | float):
        return False
    described = to_distribution(parameter)
    assert isinstance(described, FloatDistribution | IntDistribution)
    if not described.low <= label <= described.high:
        return False
    if described.step is None:
        return True
    steps = (label - described.low) / described.step
    return abs(steps - round(steps)) < 1e-8


def why_nothing_is_pruned(spec: StudySpec) -> str:
    """Returns the likeliest reason why none of many finished trials was pruned."""
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
