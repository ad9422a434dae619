"""How a matched experiment grows: how many bases and seeds to train next, and when to stop.

The experiment begins small. After each look, bases or seeds are added until each interval is
narrow enough. A look is the first K bases with the first S seeds, and the next one depends on
nothing but this one: on its variances, and on which choices are very far apart. So all looks can be
recomputed from the stored trainings alone, whichever processes made them, in whatever order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from searchae.compare.matched_results import Bools, Floats, MatchedResults, estimate
from searchae.compare.matched_statistics import error_rate, half_width

FIRST_BASES = 5
FIRST_SEEDS = 2
FIRST_DEGREES = 4
"""Least degrees of freedom of the first variance where seeds are all that varies."""
GROWTH = 1.5
"""Largest factor on bases and on seeds from one look to the next: the first forecasts may be far
too large."""
FAR = 10.0
"""A difference that is sure to be more than so many times the wanted half-width needs no narrower
interval."""
FAR_SHARE = 0.1
"""The part of the usual error rate with which that has to be sure. To stop here is to stop by the
mean, which the coverage of the interval pays for; at a tenth, by next to nothing."""
DOUBT = 0.05
"""A pair is given up if its half-width is out of reach even if the true variance is so small that
one as large as the estimate has this probability."""


@dataclass(frozen=True)
class Design:
    """A balanced design.

    Attributes:
        bases: Number of bases.
        seeds: Number of seeds of each base.
    """

    bases: int
    seeds: int


@dataclass(frozen=True)
class Limits:
    """How far an experiment may grow.

    Attributes:
        until_db: Wanted half-width of the intervals that hold for all pairs at once, in dB.
        bases: Number of available bases.
        seeds: Largest number of seeds, at least two.
        tuning_cost: Cost of tuning one choice's learning rate in one base, in full trainings.
    """

    until_db: float
    bases: int
    seeds: int = 16
    tuning_cost: float = 3.0


@dataclass(frozen=True)
class Step:
    """What a look at the variances says.

    Attributes:
        next: The design to train next; None where the experiment is over.
        forecast: The design that is expected to reach the half-widths that can be reached.
        half_width_db: The largest half-width among pairs of choices that train and are not far
            apart (see ``FAR``), in dB; None without such a pair.
        out_of_reach: The pairs, by the choices' indices, whose half-width is too large and would
            stay too large with all bases and seeds.
    """

    next: Design | None
    forecast: Design
    half_width_db: float | None
    out_of_reach: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Progress:
    """The state of an experiment.

    Attributes:
        looks: The designs that were looked at, the newest last.
        next: The design to train next; None where the experiment is over.
        last: What the newest look says; None before the first.
    """

    looks: tuple[Design, ...]
    next: Design | None
    last: Step | None

    @property
    def reached(self) -> bool:
        """Whether the experiment is over with all half-widths reached."""
        return self.next is None and self.last is not None and not self.last.out_of_reach


def progress(results: MatchedResults, limits: Limits) -> Progress:
    """Returns the experiment's state, recomputed from its first look on.

    Args:
        results: The trainings so far. Those beyond the newest complete look are ignored.
        limits: How far the experiment may grow.
    """
    design: Design | None = first_design(limits, results.population)
    looks: list[Design] = []
    step = None
    while design is not None and results.has(design.bases, design.seeds):
        looks.append(design)
        step = next_design(results.first(design.bases, design.seeds), limits)
        design = step.next
    return Progress(tuple(looks), design, step)


def first_design(limits: Limits, population: int | None) -> Design:
    """Returns the design of the first look.

    Args:
        limits: How far the experiment may grow.
        population: Number of bases that there are; None for infinitely many.

    Raises:
        ValueError: If more bases are available than there are.
    """
    if population is not None and limits.bases > population:
        raise ValueError(f"{limits.bases} bases of {population}")
    bases, seeds = min(FIRST_BASES, limits.bases), FIRST_SEEDS
    if bases == population:
        seeds = 1 + math.ceil(FIRST_DEGREES / bases)
    return Design(bases, min(seeds, limits.seeds))


def next_design(results: MatchedResults, limits: Limits, *, given_up: Collection[int] = ()) -> Step:
    """Decides how to go on after a look.

    Args:
        results: The trainings of the look, a balanced design.
        limits: How far the experiment may grow.
        given_up: Indices of choices whose differences need no narrower intervals.
    """
    design = Design(*results.made.shape[1:])
    found = estimate(results)
    alpha = error_rate(sequential=True) / len(found.mean)

    def predicted(d: Design) -> Floats:
        larger = found.variances.predicted(d.bases, d.seeds)
        return half_width(*larger.standard_error(results.population), alpha)

    half = half_width(found.error, found.degrees, alpha)
    trains = results.trains.copy()
    trains[list(given_up)] = False
    awaited = np.array([trains[[a, b]].all() for a, b in results.pairs])
    awaited &= np.isfinite(found.mean)  # there is a base in which both train
    sure = half_width(found.error, found.degrees, FAR_SHARE * alpha)
    awaited &= ~(np.abs(found.mean) - sure > FAR * limits.until_db)
    wide = awaited & (half > limits.until_db)
    full = Design(max(limits.bases, design.bases), max(limits.seeds, design.seeds))
    doubt = _doubt(found.degrees, design, full, results.population)
    hopeless = wide & (predicted(full) > limits.until_db * doubt)
    forecast = _forecast(predicted, design, limits, wide & ~hopeless)
    grown = Design(
        min(forecast.bases, math.ceil(GROWTH * design.bases)),
        min(forecast.seeds, math.ceil(GROWTH * design.seeds)),
    )
    return Step(
        next=None if grown == design else grown,
        forecast=forecast,
        half_width_db=float(half[awaited].max()) if awaited.any() else None,
        out_of_reach=tuple(p for p, given in zip(results.pairs, hopeless, strict=True) if given),
    )


def _forecast(
    predicted: Callable[[Design], Floats], design: Design, limits: Limits, pairs: Bools
) -> Design:
    """Adds bases and seeds until the pairs' half-widths are expected to be small enough.

    Each step is the one that shortens the longest interval most for its cost.
    """

    def width(d: Design) -> float:
        return float(predicted(d)[pairs].max(initial=0.0))

    now, grown = width(design), False
    while pairs.any() and (now > limits.until_db or not grown):
        steps = []
        if design.bases < limits.bases:
            larger = replace(design, bases=design.bases + 1)
            steps.append((larger, width(larger), limits.tuning_cost + design.seeds))
        if design.seeds < limits.seeds:
            larger = replace(design, seeds=design.seeds + 1)
            steps.append((larger, width(larger), float(design.bases)))
        if not steps:
            break
        before = now
        design, now, _ = max(steps, key=lambda s: math.log(before / s[1]) / s[2])
        grown = True
    return design


def _doubt(degrees: Floats, design: Design, full: Design, population: int | None) -> Floats:
    """Returns the factors by which pairs' half-widths may be overestimated."""
    from scipy import special

    if design == full or (design.bases == full.bases != population):
        return np.ones_like(degrees)  # the variance between bases will not be known better
    factor: Floats = np.sqrt(degrees / special.chdtri(degrees, 1 - DOUBT))
    return factor
