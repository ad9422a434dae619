"""Tests which of several sides is better: a paired bootstrap over images, seeds and trials.

Three things vary: the images (the same for all sides), the seeds (the same for all sides), and the
trials that represent a side. An interval over images alone would be far too narrow: with thousands
of images it shows how precisely these nets were measured, but not what another seed would give
(Bouthillier et al. 2021, Accounting for Variance in Machine Learning Benchmarks). So all three are
resampled independently, as in the pigeonhole bootstrap for crossed factors (Owen 2007, Annals of
Applied Statistics 1, 386-411), which is conservative.

With only three seeds and trials, a plain bootstrap of n values underestimates the variance by the
factor (n - 1) / n. Hence:

- From n values, n - 1 are drawn with replacement, which makes the variance unbiased (Rao and Wu
  1988, JASA 83, 231-241).
- The interval is Student's t around the difference, with the bootstrap's standard error (Efron and
  Tibshirani 1993, chapter 12) and Satterthwaite's degrees of freedom. Percentiles of so few
  distinct values would be too narrow.
- The trials of a side are the best of many. They are closer to each other than their mean is to
  that of another search, whose selection threshold would differ too. The mean of the k best is
  this threshold plus the mean excess over it; for an exponential upper tail both have about the
  same variance (Renyi's representation of order statistics). So the variance of selected trials
  counts twice.

With several sides, each pair is tested with Holm's correction (1979). The interval of a pair has
the level of its step in Holm's procedure: it excludes 0 exactly if the difference is significant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
CONFIDENCE_LEVEL = 0.95
SELECTION_VARIANCE_FACTOR = 2.0
"""Factor on the variance of trials that were selected from more."""
MIN_DIFFERENCE_DB = 0.005
"""Smaller differences, printed as 0.00 dB, never count as differences."""
_ROUNDING_DB = 1e-9
_CHUNK_VALUES = 4_000_000


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison.

    Attributes:
        rows: Row indices into the matrix of PSNRs: int (trials, seeds); seeds in the same order
            for all sides.
        selected: Whether its trials were selected from more.
    """

    rows: npt.NDArray[np.intp]
    selected: bool


@dataclass(frozen=True)
class Difference:
    """The difference between two sides.

    Attributes:
        first: Index of the better side.
        second: Index of the other side.
        mean_db: Mean PSNR of the first minus that of the second, in dB; never below 0.
        low_db: Lower end of the confidence interval, in dB.
        high_db: Upper end of the confidence interval, in dB.
        level: The interval's confidence level: 0.95 for a single pair, higher for several.
        p: p-value of the test against no difference.
        p_holm: p-value with Holm's correction for the number of pairs.
        degrees: Degrees of freedom of Student's t.
        seeds_agree: For how many seeds the first side is better.
        shown: Whether the difference is significant.
    """

    first: int
    second: int
    mean_db: float
    low_db: float
    high_db: float
    level: float
    p: float
    p_holm: float
    degrees: float
    seeds_agree: int
    shown: bool


@dataclass(frozen=True)
class _Estimate:
    first: int
    second: int
    mean: float
    error: float
    degrees: float
    seeds_agree: int

    @property
    def p(self) -> float:
        from scipy import stats

        if self.mean < MIN_DIFFERENCE_DB:
            return 1.0
        if self.error == 0:
            return 0.0
        return float(2 * stats.t.sf(self.mean / self.error, self.degrees))

    def half_width(self, level: float) -> float:
        from scipy import stats

        return float(self.error * stats.t.ppf((1 + level) / 2, self.degrees)) if self.error else 0.0


def resample_images(
    psnr_db: Floats, *, resamples: int = RESAMPLES, rng: np.random.Generator
) -> Floats:
    """Returns bootstrap means over images, with the same images drawn for all trainings.

    Args:
        psnr_db: PSNR of each training on each image, in dB: (trainings, images), at least two
            images.
        resamples: Number of resamples.
        rng: Random number generator.

    Returns:
        Means in dB: (resamples, trainings).
    """
    images = psnr_db.shape[1]
    drawn = images - 1
    out = np.empty((resamples, len(psnr_db)))
    step = max(1, _CHUNK_VALUES // images)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        picks = rng.integers(0, images, (count, drawn), dtype=np.int32)
        picks += (np.arange(count, dtype=np.int32) * images)[:, None]
        weights = np.bincount(picks.ravel(), minlength=count * images).reshape(count, images)
        out[start : start + count] = weights @ psnr_db.T / drawn
    return out


def differences(
    psnr_db: Floats,
    sides: Sequence[Side],
    *,
    image_means: Floats,
    rng: np.random.Generator,
) -> list[Difference]:
    """Compares every pair of sides.

    Args:
        psnr_db: PSNR of each training on each image, in dB: (trainings, images).
        sides: The sides, at least two; all with the same seeds, at least two of them.
        image_means: The result of ``resample_images`` for ``psnr_db``.
        rng: Random number generator.

    Returns:
        The difference of each pair, the smallest p-value first.
    """
    resamples, seeds = len(image_means), sides[0].rows.shape[1]
    seed_weights = _weights(seeds, resamples, rng)
    means = []
    for side in sides:
        by_trial = _weights(len(side.rows), resamples, rng, stretch=_selection_scale(side))
        values = image_means[:, side.rows]  # (resamples, trials, seeds)
        means.append(np.einsum("bts,bt,bs->b", values, by_trial, seed_weights))
    centre = [psnr_db[s.rows].mean() for s in sides]
    found = []
    for a, b in combinations(range(len(sides)), 2):
        first, second = (a, b) if centre[a] >= centre[b] - _ROUNDING_DB else (b, a)
        variance = float((means[first] - means[second]).var(ddof=1))
        found.append(_estimate(psnr_db, sides, first, second, variance))
    return _holm(found)


def _weights(
    count: int, resamples: int, rng: np.random.Generator, *, stretch: float = 1.0
) -> Floats:
    """Returns bootstrap weights (resamples, count) with sum 1, from ``count - 1`` draws each.

    Args:
        count: Number of values; a single value always has weight 1.
        resamples: Number of resamples.
        rng: Random number generator.
        stretch: Factor on the weights' deviation from ``1 / count``.
    """
    if count == 1:
        return np.ones((resamples, 1))
    drawn = rng.multinomial(count - 1, np.full(count, 1 / count), size=resamples) / (count - 1)
    return 1 / count + stretch * (drawn - 1 / count)


def _selection_scale(side: Side) -> float:
    return math.sqrt(SELECTION_VARIANCE_FACTOR) if side.selected else 1.0


def _estimate(
    psnr_db: Floats, sides: Sequence[Side], first: int, second: int, variance: float
) -> _Estimate:
    a, b = (psnr_db[sides[i].rows] for i in (first, second))  # (trials, seeds, images)
    by_seed = a.mean((0, 2)) - b.mean((0, 2))
    by_image = a.mean((0, 1)) - b.mean((0, 1))
    parts = [(float(v.var(ddof=1)) / len(v), len(v) - 1) for v in (by_seed, by_image)]
    spreads = {
        i: (
            float(x.mean((1, 2)).var(ddof=1))
            * (SELECTION_VARIANCE_FACTOR if sides[i].selected else 1.0),
            len(x),
        )
        for i, x in ((first, a), (second, b))
        if len(x) > 1
    }
    if len(spreads) == 1:
        # One trial has no variance: both sides use the other side's estimate.
        ((spread, trials),) = spreads.values()
        parts.append((spread / trials + spread, trials - 1))
        variance += spread
    else:
        parts += [(spread / trials, trials - 1) for spread, trials in spreads.values()]
    total = sum(v for v, _ in parts)
    squares = sum(v * v / f for v, f in parts)
    return _Estimate(
        first=first,
        second=second,
        mean=max(0.0, float(by_seed.mean())),
        error=math.sqrt(variance),
        degrees=total * total / squares if squares else sum(f for _, f in parts),
        seeds_agree=int((by_seed > 0).sum()),
    )


def _holm(found: Sequence[_Estimate]) -> list[Difference]:
    ordered = sorted(found, key=lambda e: (e.p, -e.mean))
    all_significant, highest, out = True, 0.0, []
    tests = len(ordered)
    for number, e in enumerate(ordered):
        if all_significant:  # Holm stops at the first pair that is not significant
            tests = len(ordered) - number
        highest = max(highest, min(1.0, e.p * tests))
        level = 1 - (1 - CONFIDENCE_LEVEL) / tests
        shown = all_significant and highest < 1 - CONFIDENCE_LEVEL
        all_significant = shown
        half = e.half_width(level)
        out.append(
            Difference(
                first=e.first,
                second=e.second,
                mean_db=e.mean,
                low_db=e.mean - half,
                high_db=e.mean + half,
                level=level,
                p=e.p,
                p_holm=highest,
                degrees=e.degrees,
                seeds_agree=e.seeds_agree,
                shown=shown,
            )
        )
    return out
