"""Makes a study's pruner by its name in the study file."""

from __future__ import annotations

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import TrialState, create_trial

from searchae.config import OBJECTIVES, StudySpec
from searchae.storage import failure_of, is_usable


def make_pruner(spec: StudySpec, study: optuna.Study) -> BasePruner:
    """Returns the study's pruner, ready to be used by samplers and trials.

    Args:
        spec: The study.
        study: Optuna's handle on it.
    """
    search = spec.search
    if search.pruner == "none" or search.pauses or search.has_several_objectives:
        return NopPruner()
    if search.pruner == "median":
        return MedianPruner(
            n_startup_trials=max(4, search.startup_trials // 2),
            n_warmup_steps=search.first_rung,
        )
    halving: type[SuccessiveHalvingPruner] = SuccessiveHalvingPruner
    hyperband: type[HyperbandPruner] = HyperbandPruner
    if is_usable("incremental pruners", _check_pruners, instead="its own pruners"):
        from searchae.search import incremental_algorithms

        halving = incremental_algorithms.IncrementalSuccessiveHalvingPruner
        hyperband = incremental_algorithms.IncrementalHyperbandPruner
    if search.pruner == "successive-halving":
        return halving(min_resource=search.first_rung, reduction_factor=search.reduction_factor)
    pruner = hyperband(
        min_resource=search.first_rung,
        max_resource=spec.epochs * search.reports_per_epoch,
        reduction_factor=search.reduction_factor,
    )
    # Hyperband creates its brackets when it is first asked; until then a sampler sees the trials of
    # all brackets. Asked about a trial without reports, it creates them and prunes nothing.
    pruner.prune(study, create_trial(state=TrialState.WAITING))
    return pruner


def preload_pruners() -> None:
    """Imports what ``make_pruner`` uses: a prestarted worker does so before it is needed."""
    failure_of(_check_pruners)


def _check_pruners() -> None:
    from searchae.search.incremental_algorithms import check_pruners

    check_pruners()


def note_on_objectives(spec: StudySpec) -> str:
    """Returns a line about what several objectives mean for a search; empty for one.

    Optuna's pruners compare one value, and its TPE sampler orders pruned trials by one.
    """
    if not spec.search.has_several_objectives:
        return ""
    names = ", ".join(
        f"{name} ({'up' if OBJECTIVES[name].maximize else 'down'})"
        for name in spec.search.objectives
    )
    return (
        f"objectives {names}: nothing is pruned, since a trial that is behind in PSNR may be ahead "
        "in another objective"
    )


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
