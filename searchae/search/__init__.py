"""Samplers and pruners by the names of a study file."""

from searchae.search.choice_floor import ChoiceFloor, floored_parameters
from searchae.search.distributions import can_take, to_distribution
from searchae.search.epochs_per_trial import expected_epochs
from searchae.search.group_pruner import falls_behind
from searchae.search.promotion import PAUSED, Rungs, is_paused
from searchae.search.pruners import (
    make_pruner,
    note_on_objectives,
    preload_pruners,
    why_nothing_is_pruned,
)
from searchae.search.samplers import INCREMENTAL_FROM, make_sampler
from searchae.search.size_limit import MOST_CHOICES, SizeLimit, SizeLimitedSampler
from searchae.search.tpe_history import FinishedTrialCursor, TrialHistory

__all__ = [
    "INCREMENTAL_FROM",
    "MOST_CHOICES",
    "PAUSED",
    "ChoiceFloor",
    "FinishedTrialCursor",
    "Rungs",
    "SizeLimit",
    "SizeLimitedSampler",
    "TrialHistory",
    "can_take",
    "expected_epochs",
    "falls_behind",
    "floored_parameters",
    "is_paused",
    "make_pruner",
    "make_sampler",
    "note_on_objectives",
    "preload_pruners",
    "to_distribution",
    "why_nothing_is_pruned",
]
