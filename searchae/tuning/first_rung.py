"""When a trial may be pruned first, where a study does not give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from searchae.config import StudySpec
from searchae.errors import SpecError
from searchae.formatting import format_count

LEAST_STEPS = 25
"""Training steps before which trials are not ranked. The default pruner was chosen on data sets
with 28 steps an epoch and more (benchmarks/defaults.md); after a few steps a rank is chance."""


def stored_first_rung(spec: StudySpec, stored: StudySpec) -> StudySpec:
    """Returns a spec with the stored study's first rung, unless it gives its own."""
    if _is_given(spec):
        return spec
    search = stored.search
    return _with(spec, min_epochs=search.min_epochs, first_report=search.first_report)


def choose_first_rung(
    spec: StudySpec, *, images: int, batch_size: int, note: Callable[[str], None]
) -> StudySpec:
    """Returns a spec whose first rung has enough steps to rank trials.

    Args:
        spec: The study; returned as it is if it gives ``search.min_epochs`` or
            ``search.first_report``.
        images: Number of training images.
        batch_size: The largest batch size of the study.
        note: Called with a line for the user if trials are not ranked from the first epoch on.

    Raises:
        SpecError: An epoch has too few steps for ``search.first_report``.
    """
    search = spec.search
    steps = -(-images // batch_size)  # of an epoch
    least = -(-LEAST_STEPS // steps)
    is_pruned = search.pruner != "none" and not search.has_several_objectives
    an_epoch = f"{format_count(steps, 'step')} an epoch"
    few = f"{images:,} training images in batches of {batch_size} are {an_epoch}"
    if steps < search.reports_per_epoch:
        raise SpecError(
            f"search.first_report: {search.first_report:g} of an epoch is less than a step ({few})"
        )
    if _is_given(spec) or not is_pruned or least <= search.min_epochs:
        return spec
    if least >= spec.epochs:
        note(
            f"{few}, too few to tell good trials from bad ones within "
            f"{format_count(spec.epochs, 'epoch')}: nothing is pruned; more epochs (train.epochs) "
            "or a smaller train.batch_size would do"
        )
    else:
        note(f"{few}: trials are pruned from epoch {least} on (search.min_epochs)")
    return _with(spec, min_epochs=min(least, spec.epochs))


def _is_given(spec: StudySpec) -> bool:
    return not spec.search.model_fields_set.isdisjoint({"min_epochs", "first_report"})


def _with(spec: StudySpec, **changes: Any) -> StudySpec:
    return replace(spec, search=spec.search.model_copy(update=changes))
