"""Which of several sides is better, and whether that is shown: a paired, two-level bootstrap.

What varies: the images (the same for all), the seeds (the same for both sides), and the trials
that a side is represented by. An interval over images alone would be far too short: with
thousands of images it says how well these very nets were measured, and nothing of the next seed
(Bouthillier et al. 2021, Accounting for Variance in Machine Learning Benchmarks). So all three
are resampled, each for itself, as in the pigeonhole bootstrap of crossed factors (Owen 2007,
Annals of Applied Statistics 1, 386-411), which errs to the wide side.

Three seeds and three trials are few, and a plain bootstrap of n values has a variance that is
too small by (n - 1) / n. Three things answer that:

- Of n values n - 1 are drawn, with replacement; the variance is unbiased then (Rao and Wu 1988,
  JASA 83, 231-241).
- The interval is Student's t around the difference, with the bootstrap's standard error (Efron
  and Tibshirani 1993, chapter 12) and Satterthwaite's degrees of freedom. Percentiles of so few
  distinct values cannot reach far enough.
- A side's trials are the best of many, hence closer together than their mean is to what another
  search would have found: the bar that they had to pass would have moved too. The mean of the
  k best is that bar plus the mean excess over it; for an exponential upper tail both have about
  the same variance (Renyi's representation of order statistics). So the variance of trials
  chosen from more is counted twice.

Several sides: every pair is tested, with Holm's correction (1979), and the interval of a pair
has the level that Holm's step gives it, so that it excludes 0 just where a difference is shown.
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
LEVEL = 0.95
SELECTED = 2.0
"""Factor on the variance of trials that are the best of more."""
SMALLEST_DB = 0.005
"""A difference that would be printed as 0.00 dB is none, however sure it is."""
_ROUNDING_DB = 1e-9
_CHUNK_VALUES = 4_000_000


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison.

    Attributes:
        rows: Of the matrix of PSNRs: int (trials, seeds); the seeds in the same order everywhere.
        selected: Its trials are the best of more.
    """

    rows: npt.NDArray[np.intp]
    selected: bool


@dataclass(frozen=True)
class Difference:
    """What was found of a pair of sides.

    Attributes:
        first: Index of the better one.
        second: Index of the other one.
        mean_db: Mean PSNR of the first minus that of the second, in dB; never below 0.
        low_db: Lower end of the interval, in dB.
        high_db: Upper end.
        level: Of the interval; 0.95 for a single pair, higher for one of several.
        p: That of a test against no difference, by itself.
        p_holm: Corrected for the number of pairs.
        degrees: Student's degrees of freedom.
        seeds_agree: In how many of the seeds the first is better.
        shown: Whether there is a difference.
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

        if self.mean < SMALLEST_DB:
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
    """Bootstrap means over images, the same images for all trainings.

    Args:
        psnr_db: Of each training on each image, in dB: (trainings, images), at least two images.
        resamples: How many.
        rng: Draws.

    Returns:
        (resamples, trainings), in dB.
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
        psnr_db: (trainings, images), in dB.
        sides: At least two; all with the same seeds, at least two of them.
        image_means: What ``resample_images`` made of ``psnr_db``.
        rng: Draws trials and seeds.

    Returns:
        A difference for each pair, the surest first.
    """
    resamples, seeds = len(image_means), sides[0].rows.shape[1]
    seed_weights = _weights(seeds, resamples, rng)
    means = []
    for side in sides:
        by_trial = _weights(len(side.rows), resamples, rng, stretch=_stretch(side))
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
    """Weights (resamples, count) that sum to 1: ``count - 1`` draws; a single one is kept."""
    if count == 1:
        return np.ones((resamples, 1))
    drawn = rng.multinomial(count - 1, np.full(count, 1 / count), size=resamples) / (count - 1)
    return 1 / count + stretch * (drawn - 1 / count)


def _stretch(side: Side) -> float:
    return math.sqrt(SELECTED) if side.selected else 1.0


def _estimate(
    psnr_db: Floats, sides: Sequence[Side], first: int, second: int, variance: float
) -> _Estimate:
    a, b = (psnr_db[sides[i].rows] for i in (first, second))  # (trials, seeds, images)
    by_seed = a.mean((0, 2)) - b.mean((0, 2))
    by_image = a.mean((0, 1)) - b.mean((0, 1))
    parts = [(float(v.var(ddof=1)) / len(v), len(v) - 1) for v in (by_seed, by_image)]
    spreads = {
        i: (float(x.mean((1, 2)).var(ddof=1)) * (SELECTED if sides[i].selected else 1.0), len(x))
        for i, x in ((first, a), (second, b))
        if len(x) > 1
    }
    if len(spreads) == 1:
        # A single trial shows no spread: the other side's stands in for it, one estimate for both.
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
    open_still, highest, out = True, 0.0, []
    tests = len(ordered)
    for number, e in enumerate(ordered):
        if open_still:  # at the first failure the steps end, and so does their narrowing
            tests = len(ordered) - number
        highest = max(highest, min(1.0, e.p * tests))
        level = 1 - (1 - LEVEL) / tests
        shown = open_still and highest < 1 - LEVEL
        open_still = shown
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
