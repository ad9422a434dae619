"""The first epoch after which a trial may be pruned, where a study does not give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from searchae.config import StudySpec
from searchae.formatting import format_count

LEAST_STEPS = 25
"""Training steps before which trials are not ranked. The default pruner was chosen on data sets
with 28 steps an epoch and more (benchmarks/defaults.md); after a few steps a rank is chance."""


def stored_min_epochs(spec: StudySpec, stored: StudySpec) -> StudySpec:
    """Returns a spec with the stored study's ``search.min_epochs``, unless it gives its own."""
    return spec if _is_given(spec) else _with(spec, stored.search.min_epochs)


def choose_min_epochs(
    spec: StudySpec, *, images: int, batch_size: int, note: Callable[[str], None]
) -> StudySpec:
    """Returns a spec whose ``search.min_epochs`` have enough steps to rank trials.

    Args:
        spec: The study; returned as it is if it gives ``search.min_epochs``.
        images: Number of training images.
        batch_size: The largest batch size of the study.
        note: Called with a line for the user if trials are not ranked from the first epoch on.
    """
    search = spec.search
    steps = -(-images // batch_size)  # of an epoch
    least = -(-LEAST_STEPS // steps)
    is_pruned = search.pruner != "none" and not search.has_several_objectives
    if _is_given(spec) or not is_pruned or least <= search.min_epochs:
        return spec
    few = f"{images:,} training images in batches of {batch_size} are {steps} steps an epoch"
    if least >= spec.epochs:
        note(
            f"{few}, too few to tell good trials from bad ones within "
            f"{format_count(spec.epochs, 'epoch')}: nothing is pruned; more epochs (train.epochs) "
            "or a smaller train.batch_size would do"
        )
    else:
        note(f"{few}: trials are pruned from epoch {least} on (search.min_epochs)")
    return _with(spec, min(least, spec.epochs))


def _is_given(spec: StudySpec) -> bool:
    return "min_epochs" in spec.search.model_fields_set


def _with(spec: StudySpec, min_epochs: int) -> StudySpec:
    return replace(spec, search=spec.search.model_copy(update={"min_epochs": min_epochs}))
