"""How many epochs the trials of a search take, before any has run."""

from __future__ import annotations

import math
from itertools import pairwise

from searchae.config import StudySpec
from searchae.search.promotion import rung_steps

PASSED_EXPONENT = 0.55
"""Of the trials on a rung, the share ``reduction_factor ** -0.55`` goes on. It is more than one in
``reduction_factor``, since a trial is compared with those before it, which get better. Fitted to
replayed searches of 50 trials (benchmarks/defaults.md): with halving they take 0.52, 0.38 and 0.29
of the epochs that they take without a pruner, of trainings of 6, 12 and 30 epochs."""
MEDIAN_SHARE = 0.5
"""The same share for the median rule: 0.61, 0.51 and 0.46 there."""


def expected_epochs(spec: StudySpec) -> float:
    """Returns the epochs that a trial of a study takes on average.

    Plateaus (``train.patience``), which depend on the images, are not counted on.

    Args:
        spec: The study.
    """
    search = spec.search
    if search.pruner == "none" or search.has_several_objectives:
        return float(spec.epochs)
    if search.pruner == "median":
        return max(spec.epochs * MEDIAN_SHARE, float(search.epochs_at(search.first_rung)))
    rungs = tuple(search.epochs_at(step) for step in rung_steps(spec))
    if search.pruner == "hyperband":
        return _over_brackets(rungs, search.reduction_factor, spec.epochs)
    # With asha the share that goes on is exact in the end.
    passed = math.pow(search.reduction_factor, -1.0 if search.pauses else -PASSED_EXPONENT)
    return _epochs(rungs, passed, spec.epochs)


def _epochs(rungs: tuple[float, ...], passed: float, epochs: int) -> float:
    """Returns the mean epochs of trials of which a share goes on from each rung to the next."""
    stops = pairwise((0, *rungs, epochs))
    return sum(math.pow(passed, i) * (stop - start) for i, (start, stop) in enumerate(stops))


def _over_brackets(rungs: tuple[float, ...], factor: int, epochs: int) -> float:
    """Returns the mean over Hyperband's brackets, each of which leaves out one more rung.

    Each has the share of the trials that Optuna's ``HyperbandPruner`` gives it.
    """
    count = len(rungs) + (not rungs or rungs[-1] * factor == epochs)
    shares = [math.ceil(count * math.pow(factor, s) / (s + 1)) for s in reversed(range(count))]
    passed = math.pow(factor, -PASSED_EXPONENT)
    means = [_epochs(rungs[i:], passed, epochs) for i in range(count)]
    return sum(s * m for s, m in zip(shares, means, strict=True)) / sum(shares)
