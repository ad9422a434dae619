"""The measurements of a matched experiment, and the estimates that all its statements rest on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from searchae.compare.tuning_luck import tuning_variance
from searchae.training import LEARNED_DB

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RESOLUTION_DB = 0.0025
"""Part of every standard error: a mean below 0.005 dB, printed as 0.00 dB, is never shown."""
OWN_WEIGHT = 0.5
"""Weight of a pair's own variance between bases; the rest is the mean over all steady pairs."""
MAX_RATIO = 2.0
"""In this mean a variance counts at most this many times the pair's own."""
MAX_DEGREES = 1e6


@dataclass(frozen=True, eq=False)
class MatchedResults:
    """The trainings of one parameter's matched experiment.

    Bases and seeds are in the order in which they are added, so that an earlier state of the
    experiment is a prefix: ``results.first(bases, seeds)``.

    Attributes:
        choices: Names of the C choices, at least two.
        psnr_db: PSNR of each training on each test image, in dB: (C, K, S, N). NaN where a
            training has not been made; any value where it failed. With N = 1 the images' variance
            is not counted.
        failed: Whether a training diverged or died: (C, K, S). See ``counts``.
        baseline_db: PSNR of the mean training image on each test image, in dB: (N,).
        population: Number M of bases that there are; None for infinitely many.
        finals_db: Mean validation PSNR of each point in the final of each choice's tuning in each
            base, in dB: (C, K, F); NaN where there are fewer. From it follows what another tuning
            may come to; without it the results are on the learning rates that were found.
        finals_seeds: Number of trainings of each of these points: (C, K, F).
    """

    choices: tuple[str, ...]
    psnr_db: Floats
    failed: Bools
    baseline_db: Floats
    population: int | None = None
    finals_db: Floats | None = None
    finals_seeds: Floats | None = None

    def __post_init__(self) -> None:
        choices, bases, _, images = self.psnr_db.shape
        if choices != len(self.choices) or choices < 2:
            raise ValueError(f"{choices} rows of PSNR for {len(self.choices)} choices")
        if self.failed.shape != self.psnr_db.shape[:3] or self.baseline_db.shape != (images,):
            raise ValueError("the arrays' shapes do not belong together")
        if self.population is not None and bases > self.population:
            raise ValueError(f"{bases} bases of {self.population}")

    @cached_property
    def made(self) -> Bools:
        """Which trainings have been made, failed ones included: (C, K, S)."""
        made: Bools = self.failed | ~np.isnan(self.psnr_db[..., 0])
        return made

    @cached_property
    def counted_db(self) -> Floats:
        """PSNR, with the baseline for trainings that did not train, in dB: (C, K, S, N)."""
        below = np.array(self.made & ~self.above)
        return np.where(below[..., None], self.baseline_db, self.psnr_db)

    @cached_property
    def above(self) -> Bools:
        """Which trainings did not fail: they ended clearly above the baseline: (C, K, S)."""
        least = self.baseline_db.mean() + LEARNED_DB
        with np.errstate(invalid="ignore"):
            above: Bools = np.array(self.psnr_db.mean(3) >= least) & ~self.failed
        return above

    @cached_property
    def trains(self) -> Bools:
        """Whether at least half of a choice's trainings ended clearly above the baseline: (C,).

        Bases count alike, however many seeds they have.
        """
        made = self.made.sum(2)
        with np.errstate(invalid="ignore"):
            shares = np.where(made > 0, self.above.sum(2) / made, 0.0).sum(1)
        bases = (made > 0).sum(1)
        trains: Bools = (bases > 0) & (2 * shares >= bases)
        return trains

    @cached_property
    def counts(self) -> Bools:
        """Which trainings count in the differences: (C, K, S).

        Of a choice that trains those that trained; of one that does not all of them.
        """
        counts: Bools = self.made & (self.above | ~self.trains[:, None, None])
        return counts

    @cached_property
    def cell_means_db(self) -> Floats:
        """Mean PSNR of each choice in each base, in dB: (C, K). NaN where no training counts."""
        counts = self.counts
        with np.errstate(invalid="ignore"):
            means: Floats = np.where(counts, self.counted_db.mean(3), 0.0).sum(2) / counts.sum(2)
        return means

    @cached_property
    def not_trained(self) -> npt.NDArray[np.int64]:
        """Number of trainings that diverged, died or ended near the baseline: (C,)."""
        return np.array((self.made & ~self.above).sum((1, 2)))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs of choices, by index."""
        return list(combinations(range(len(self.choices)), 2))

    def has(self, bases: int, seeds: int) -> bool:
        """Returns whether all trainings of the first bases and seeds have been made."""
        part = self.made[:, :bases, :seeds]
        return part.shape[1:] == (bases, seeds) and bool(part.all())

    def first(self, bases: int, seeds: int) -> MatchedResults:
        """Returns the experiment as it was with its first bases and seeds."""
        return replace(
            self,
            psnr_db=self.psnr_db[:, :bases, :seeds],
            failed=self.failed[:, :bases, :seeds],
            finals_db=None if self.finals_db is None else self.finals_db[:, :bases],
            finals_seeds=None if self.finals_seeds is None else self.finals_seeds[:, :bases],
        )

    def tuning_variances(self, within: Floats) -> Floats:
        """Returns the variances of the pairs' differences by luck in tuning, in dB^2: (P,).

        Args:
            within: The variances of the pairs' differences over seeds, in dB^2: (P,).
        """
        if self.finals_db is None:
            return np.zeros(len(self.pairs))
        seeds = np.ones_like(self.finals_db) if self.finals_seeds is None else self.finals_seeds
        found = []
        for (a, b), variance in zip(self.pairs, within, strict=True):
            common = np.flatnonzero((self.counts[a] & self.counts[b]).any(1))
            both = [
                tuning_variance(self.finals_db[c, k], variance / 2, seeds[c, k])
                for k in common
                for c in (a, b)
            ]
            found.append(2 * sum(both) / len(both) if both else 0.0)
        return np.array(found)


@dataclass(frozen=True, eq=False)
class Variances:
    """The variances of P pairs' differences; ``matched_statistics`` has the formula.

    Attributes:
        between: Variance of the bases' mean differences, in dB^2: (P,). NaN for one base.
        within: Variance of a base's differences over seeds, in dB^2: (P,). NaN for one seed.
        within_degrees: Its degrees of freedom: (P,).
        tuning: Variance of a base's difference over repeated tunings, in dB^2: (P,).
        images: Squared standard error over the images, in dB^2: (P,).
        images_degrees: Its degrees of freedom.
        bases: Number of bases that have the pair: (P,).
        inverse_seeds: Mean over these bases of 1 / (number of seeds): (P,).
        steady: Whether both choices train: (P,).
        lacking: Number of bases in which both choices were tried, but no training of one of
            them trained: (P,).
    """

    between: Floats
    within: Floats
    within_degrees: Floats
    tuning: Floats
    images: Floats
    images_degrees: float
    bases: Floats
    inverse_seeds: Floats
    steady: Bools
    lacking: Floats

    def standard_error(self, population: int | None) -> tuple[Floats, Floats]:
        """Returns the standard errors, in dB, and their degrees of freedom: (P,) each.

        An error is infinite where nothing is known of its largest part.

        Args:
            population: Number of bases that there are; None for infinitely many.
        """
        seeds = self.within * self.inverse_seeds
        # With one seed a base's own noise is unknown: then no correction for seen bases is made.
        others = np.inf if population is None else population - self.lacking
        seen = np.where(np.isnan(seeds), 0.0, np.minimum(self.bases / np.maximum(others, 1.0), 1.0))
        between, gain = self._moderated(np.fmax(self.between, seeds))
        unseen = np.where(seen == 1, 0.0, (1 - seen) * between / self.bases)
        unseen = np.where((self.bases < 2) & (seen < 1), np.inf, unseen)
        known = np.where(np.isnan(self.within), 0.0, self.within)
        noise = np.where(seen > 0, seen * (known * self.inverse_seeds + self.tuning), 0.0)
        degrees = [gain * (self.bases - 1), self.within_degrees, np.array(self.images_degrees)]
        return combined_error([unseen, noise / self.bases, self.images], degrees)

    def _moderated(self, between: Floats) -> tuple[Floats, Floats]:
        """Moves the variances of steady pairs half-way to their mean.

        Returns:
            The variances, and the factors on their degrees of freedom: (P,) each. For C choices of
            equal variance, the mean has C - 1 times the degrees of a single pair, and its
            covariance with one is its own variance.
        """
        pooled = self.steady & (self.bases > 1)
        if pooled.sum() < 2:
            return between, np.ones_like(between)
        pool = between[pooled]
        choices = (1 + math.sqrt(1 + 8 * len(pool))) / 2
        gain = 1 / (OWN_WEIGHT**2 + (1 - OWN_WEIGHT**2) / (choices - 1))
        mean = np.minimum(pool, MAX_RATIO * between[:, None]).mean(1)
        moderated = OWN_WEIGHT * between + (1 - OWN_WEIGHT) * mean
        return np.where(pooled, moderated, between), np.where(pooled, gain, 1.0)

    def predicted(self, bases: int, seeds: int) -> Variances:
        """Returns the variances to expect from a larger design with the same noise."""
        noise = self.within * self.inverse_seeds
        interaction = np.where(self.bases > 1, np.fmax(self.between - noise, 0.0), 0.0)
        return replace(
            self,
            between=interaction + self.within / seeds,
            within_degrees=np.full_like(noise, bases * (seeds - 1.0)),
            bases=np.full_like(noise, bases),
            inverse_seeds=np.full_like(noise, 1 / seeds),
        )


@dataclass(frozen=True, eq=False)
class Estimates:
    """The differences of P pairs of choices, first minus second.

    Attributes:
        mean: Mean difference, in dB: (P,). NaN for pairs without a common training.
        error: Its standard error, in dB: (P,).
        degrees: The error's degrees of freedom: (P,).
        by_base: Mean difference in each base, in dB: (P, K). NaN where a base lacks the pair.
        base_error: Its standard error over seeds and images, in dB: (P, K).
        base_degrees: The error's degrees of freedom: (P, K).
        variances: What the errors are made of.
    """

    mean: Floats
    error: Floats
    degrees: Floats
    by_base: Floats
    base_error: Floats
    base_degrees: Floats
    variances: Variances


def estimate(results: MatchedResults) -> Estimates:
    """Returns the differences of all pairs, in the order of ``results.pairs``."""
    first, second = np.array(results.pairs).T
    both = results.counts[first] & results.counts[second]  # (P, K, S)
    difference = results.counted_db[first] - results.counted_db[second]  # (P, K, S, N)
    seeds = both.sum(2)
    tried: Bools = np.array(results.made.any(2))
    bases = (seeds > 0).sum(1).astype(np.float64)
    extra = np.maximum(seeds - 1.0, 0.0)  # a base's degrees of freedom
    with np.errstate(divide="ignore", invalid="ignore"):
        by_image = np.where(both[..., None], difference, 0.0).sum(2) / seeds[..., None]
        by_base = by_image.mean(2)
        squares = np.where(both, (difference.mean(3) - by_base[..., None]) ** 2, 0.0).sum(2)
        within = squares.sum(1) / extra.sum(1)
        mean = np.nansum(by_base, axis=1) / bases
        variances = Variances(
            between=np.nansum((by_base - mean[:, None]) ** 2, axis=1) / (bases - 1),
            within=within,
            within_degrees=extra.sum(1),
            tuning=results.tuning_variances(within),
            images=_over_images(np.nansum(by_image, axis=1) / bases[:, None]),
            images_degrees=max(difference.shape[3] - 1.0, 1.0),
            bases=bases,
            inverse_seeds=np.where(seeds > 0, 1 / seeds, 0.0).sum(1) / bases,
            steady=results.trains[first] & results.trains[second] & (bases > 0),
            lacking=(tried[first] & tried[second]).sum(1) - bases,
        )
        # A base may scatter more than the others. From so few seeds one cannot say that one
        # scatters less, so that the pooled variance is the least.
        over_seeds = np.fmax(squares / extra, within[:, None]) / seeds
        base_error, base_degrees = combined_error(
            [np.where(np.isnan(over_seeds), np.inf, over_seeds), _over_images(by_image)],
            [variances.within_degrees[:, None], np.array(variances.images_degrees)],
        )
        error, degrees = variances.standard_error(results.population)
        error, degrees = np.where(bases > 0, error, np.inf), np.where(bases > 0, degrees, 1.0)
    return Estimates(mean, error, degrees, by_base, base_error, base_degrees, variances)


def combined_error(parts: Sequence[Floats], degrees: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Returns the standard error of a sum of variances and Satterthwaite's degrees of freedom.

    Args:
        parts: Variances, in dB^2, that broadcast to one shape; infinite where unknown.
        degrees: The degrees of freedom of each.
    """
    total = np.array(RESOLUTION_DB**2 + sum(parts))
    with np.errstate(invalid="ignore"):
        squares = sum(p**2 / np.maximum(f, 1.0) for p, f in zip(parts, degrees, strict=True))
        ratio = total**2 / np.maximum(squares, total**2 / MAX_DEGREES)
    return np.sqrt(total), np.where(np.isfinite(total), ratio, 1.0)


def _over_images(difference_db: Floats) -> Floats:
    """Returns the squared standard error over the last axis, the images, in dB^2."""
    images = difference_db.shape[-1]
    if images == 1:
        return np.zeros(difference_db.shape[:-1])
    squared: Floats = difference_db.var(axis=-1, ddof=1) / images
    return squared
