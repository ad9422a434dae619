"""Samplers and pruners by the names of a study file."""

from searchae.search.choice_floor import ChoiceFloor
from searchae.search.distributions import can_take, to_distribution
from searchae.search.pruners import make_pruner, preload_pruners, why_nothing_is_pruned
from searchae.search.samplers import make_sampler
from searchae.search.tpe_history import FinishedTrialCursor, TrialHistory

__all__ = [
    "ChoiceFloor",
    "FinishedTrialCursor",
    "TrialHistory",
    "can_take",
    "make_pruner",
    "make_sampler",
    "preload_pruners",
    "to_distribution",
    "why_nothing_is_pruned",
]
