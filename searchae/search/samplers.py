"""Makes a study's sampler by its name in the study file.

A sampler is made for each trial. Its random numbers are derived from the study's seed and the
trial's number, never from the process: a search that is killed and resumed samples what it would
have sampled, and no two workers draw the same numbers.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from searchae.config import StudySpec, sampler_seed
from searchae.search.tpe_history import TrialHistory
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
    if spec.search.sampler == "nsga2":
        return NSGAIISampler(population_size=max(2, startup), seed=seed)
    is_large = number >= INCREMENTAL_FROM and not spec.search.has_several_objectives
    if is_large and is_usable("incremental sampler", _check_sampler, instead="its own TPE sampler"):
        from searchae.search.incremental_algorithms import IncrementalTPESampler

        return IncrementalTPESampler(history or TrialHistory(), seed=seed, n_startup_trials=startup)
    # Conditional parameters split the space into groups; running trials count as bad ones, so
    # that workers do not all try the same place.
    return TPESampler(
        multivariate=True, group=True, constant_liar=True, seed=seed, n_startup_trials=startup
    )


def _check_sampler() -> None:
    from searchae.search.incremental_algorithms import check_sampler

    check_sampler()
