"""One parameter's matched experiment, simulated: trainings are drawn, the product judges them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from searchae.compare.matched_design import Design, Limits, progress
from searchae.compare.matched_results import Floats, MatchedResults
from searchae.compare.matched_statistics import MatchedVerdict, PairDifference, analyse

LEVEL_DB, BASELINE_DB = 27.0, 14.5
IMAGES = 6
"""Few images whose mean has the standard error of 986, since only that matters."""
IMAGE_ERROR_DB = 0.032
"""Standard error of a difference from 986 images with a deviation of 1 dB."""


@dataclass(frozen=True)
class World:
    """The noise of trainings, in dB.

    Attributes:
        name: What the table calls it.
        interaction: Standard deviation over bases of the difference between two choices.
        tuning: Standard deviation of what one choice in one base loses by its tuning.
        seed: Standard deviation of a training over seeds, where its base is given.
        tails: Degrees of freedom of the noise's t distribution; None for normal noise.
        last: Factor on the last choice's interaction and seed noise.
        fails: How often the last choice's trainings fail; differences are between the others.
        population: Number of bases that there are; None for infinitely many.
        retuned: Whether the truth is on all rates that tuning may find, not on those found.
        bases: Number of bases available.
        seeds: Largest number of seeds.
    """

    name: str
    interaction: float = 0.25
    tuning: float = 0.15
    seed: float = 0.35
    tails: float | None = None
    last: float = 1.0
    fails: float = 0.0
    population: int | None = None
    retuned: bool = False
    bases: int = 40
    seeds: int = 8

    def draw(
        self, gains_db: Sequence[float], rng: np.random.Generator
    ) -> tuple[MatchedResults, Floats, Floats]:
        """Returns all trainings there may be, and each choice's true PSNR in each base: (C, K).

        The last value is each choice's true PSNR: (C,).
        """
        choices, bases, seeds = len(gains_db), self.bases, self.seeds
        noise = partial(_noise, rng, self.tails)
        scale = np.ones((choices, 1))
        scale[-1] = self.last
        mean = LEVEL_DB + np.array(gains_db)[:, None]
        as_meant = mean + scale * self.interaction / math.sqrt(2) * noise((choices, bases))
        as_tuned = as_meant + self.tuning * noise((choices, bases))
        psnr = as_tuned[..., None] + scale[..., None] * self.seed * noise((choices, bases, seeds))
        likes = IMAGE_ERROR_DB * math.sqrt(IMAGES / 2) * rng.normal(size=(choices, 1, 1, IMAGES))
        failed = np.zeros(psnr.shape, dtype=bool)
        failed[-1] = rng.random((bases, seeds)) < self.fails
        results = MatchedResults(
            choices=tuple("abcdef"[:choices]),
            psnr_db=psnr[..., None] + likes,
            failed=failed,
            baseline_db=np.full(IMAGES, BASELINE_DB),
            population=self.population,
        )
        truth = mean if self.population is None else as_meant if self.retuned else as_tuned
        return results, as_tuned, truth.mean(1)


def _noise(rng: np.random.Generator, tails: float | None, shape: tuple[int, ...]) -> Floats:
    if tails is None:
        return rng.normal(size=shape)
    drawn: Floats = rng.standard_t(tails, size=shape) * math.sqrt((tails - 2) / tails)
    return drawn


@dataclass(frozen=True)
class Outcome:
    """One simulated sentence.

    Attributes:
        shows: Whether it shows a difference.
        false: Whether it shows a difference that has not the sign of the true one.
        covered: Share of its pairs whose interval holds the truth.
        all_covered: Whether the intervals for all pairs at once do.
        false_opposite: Whether it reports opposite effects that are not there.
        bases_covered: Whether all its intervals of bases hold the truth.
        found: Whether the first choice is shown to be better than each other.
        best: Whether the first choice is the best.
        reached: Whether the half-widths were reached.
        half_db: The largest half-width, in dB.
        bases: Number of bases.
        seeds: Number of seeds.
        trainings: Number of trainings.
        cost: The same with the tuning's tries, in full trainings.
    """

    shows: bool
    false: bool
    covered: float
    all_covered: bool
    false_opposite: bool
    bases_covered: bool
    found: bool
    best: bool
    reached: bool
    half_db: float
    bases: int
    seeds: int
    trainings: int
    cost: float


def sentence(
    world: World,
    gains_db: Sequence[float],
    until_db: float,
    fixed: Design | None,
    seed: int,
) -> Outcome:
    """Simulates one parameter's experiment from its first look to its verdict.

    Args:
        world: The noise.
        gains_db: How much better each choice is, in dB.
        until_db: Wanted half-width, in dB.
        fixed: The design, if it is not to grow.
        seed: Seed of the random numbers.
    """
    results, by_base, true = world.draw(gains_db, np.random.default_rng(seed))
    limits = Limits(until_db=until_db, bases=world.bases, seeds=world.seeds)
    design, reached = fixed, False
    if design is None:
        state = progress(results, limits)
        design, reached = state.looks[-1], state.reached
    verdict = analyse(results.first(design.bases, design.seeds), sequential=fixed is None)
    return _judged(verdict, true, by_base, design, limits, reached=reached)


def _judged(
    verdict: MatchedVerdict,
    true: Floats,
    by_base: Floats,
    design: Design,
    limits: Limits,
    *,
    reached: bool,
) -> Outcome:
    pairs = verdict.pairs
    gap = {p: float(true[p.first] - true[p.second]) for p in pairs}
    in_bases = {p: by_base[p.first] - by_base[p.second] for p in pairs}
    choices = len(true)
    trainings = choices * design.bases * design.seeds
    return Outcome(
        shows=any(p.shown for p in pairs),
        false=any(p.shown and gap[p] <= 0 for p in pairs),
        covered=float(np.mean([p.low_db <= gap[p] <= p.high_db for p in pairs])),
        all_covered=all(abs(p.mean_db - gap[p]) <= p.half_width_db for p in pairs),
        false_opposite=any(p.opposite and not _has_opposite(p, in_bases[p]) for p in pairs),
        bases_covered=all(
            b.low_db <= in_bases[p][b.base] <= b.high_db for p in pairs for b in p.by_base
        ),
        found=sum(p.shown for p in pairs if p.first == 0) == choices - 1,
        best=verdict.best == 0,
        reached=reached,
        half_db=max(p.half_width_db for p in pairs),
        bases=design.bases,
        seeds=design.seeds,
        trainings=trainings,
        cost=trainings + choices * design.bases * limits.tuning_cost,
    )


def _has_opposite(pair: PairDifference, true: Floats) -> bool:
    above = [b.base for b in pair.by_base if b.low_db > 0]
    below = [b.base for b in pair.by_base if b.high_db < 0]
    return bool((true[above] > 0).any() and (true[below] < 0).any())
