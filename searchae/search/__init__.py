"""Samplers and pruners by the names of a study file."""

from searchae.search.factory import (
    can_take,
    make_pruner,
    make_sampler,
    to_distribution,
    why_nothing_is_pruned,
)
from searchae.search.history import FinishedTrialCursor, TrialHistory

__all__ = [
    "FinishedTrialCursor",
    "TrialHistory",
    "can_take",
    "make_pruner",
    "make_sampler",
    "to_distribution",
    "why_nothing_is_pruned",
]
