"""Which choice of a parameter is better, by how much, and how sure that is: a matched experiment.

Each choice is put into the same K bases (settings of all other parameters), with a learning rate
tuned for it there, and trained with S seeds. Of two choices, trainings with the same base and seed
are compared on the same images, so that what bases, seeds and images have in common cancels.

**Estimate.** The mean over bases of the bases' mean differences.

**Error.** Bases are a sample of the good settings that a search can find; another search finds
others. So the unit of replication is the base, not the training and not the image. The variance
``s2_between`` of the bases' mean differences contains all that differs between bases: the
interaction of choice and base, the luck in tuning a learning rate, and the seeds' noise divided by
S. ``s2_between / K`` with K - 1 degrees of freedom is the paired t-test on cluster means, which is
exact for normal differences. Where a parameter has only M possible bases, less is left unseen, and
two-stage sampling applies (Cochran 1977, Sampling Techniques, theorem 10.2, with f = K / M)::

    variance = (1 - f) * s2_between / K + f * (s2_within / S + s2_tuning) / K + s2_images / N

``s2_within`` is the variance of a base's differences over seeds, pooled over the bases.
``s2_tuning`` is that over repeated tunings of both choices: another search may find other learning
rates, and contradict a statement on those that were found. See ``tuning_luck``. ``s2_images`` is
the variance over images of the mean difference: more bases or seeds do not help. The degrees of
freedom of the sum are Satterthwaite's (1946, Biometrics Bulletin 2, 110-114). ``s2_between`` is
never taken below ``s2_within / S``, its value without any interaction.

A seed's effect on a choice is assumed to be another one in each base. This holds if bases have
seeds of their own, and nearly so if they share them: for 5 choices, 3 bases and 3 seeds on SVHN,
choice x seed had F = 1.08 (p = 0.42) against choice x base x seed.

**A choice that fails** at times is compared by the trainings that trained, and how often it failed
is said beside that: a mean over both would say neither how good it is nor how often it fails, and
one failed training of twenty would hide a difference of 1 dB. A choice of which more than half of
the trainings failed does not train: it counts with all of them, the failed ones at the baseline.
One that comes to nothing in its first bases is not tried in the others.

**A choice that scatters** does not widen the intervals between others: each pair has its own
variances. With few bases they are poorly known. So among choices that train, ``s2_between`` is
moved half-way to its mean over their pairs (a moderated variance as in Smyth 2004, Statistical
Applications in Genetics and Molecular Biology 3(1), with a fixed weight), which gives more degrees
of freedom. Complete pooling would be wrong where one choice scatters more: then
its pairs are tested with too small a variance. At half the weight the remaining error is smaller
than the slack of Holm's correction, since such pairs are strongly correlated.

**Several pairs.** Holm's correction (1979, Scandinavian Journal of Statistics 6, 65-70) over the
pairs of the parameter: each parameter's sentence shows a false difference at most 5% of the time.
A pair's interval has the level of its step in Holm's procedure; it excludes 0 exactly if the
difference is shown. Each of these intervals holds at least 95% of the time; those of
``half_width_db`` do so all at once.

**Several looks.** Bases and seeds are added until the half-widths are small. Whether to go on
depends on variances alone (and on which choices train at all, and which are very far apart: see
``matched_design.FAR``). For normal differences variances
are independent of the mean of the final design, so that stopping does not bias the mean; but it
happens too early where the variance is underestimated (Stein 1945, Annals of Mathematical
Statistics 16, 243-258; Chow and Robbins 1965, ibid. 36, 457-462). As Starr (1966, ibid. 37, 36-50)
did, the coverage is computed for all ratios of noise and wanted half-width; the lowest of a plain t
interval is 92%, where the first look has 4 degrees of freedom. All tests and intervals therefore
use only ``SEQUENTIAL_SHARE`` of the 5%, which brings it back to 95%. That costs about a quarter
more trainings; taking the largest variance of all looks, or dividing the 5% between the looks,
costs more. ``benchmarks/verdicts.md`` has these figures and the whole procedure's error rates.

**Opposite effects.** Each base has a simultaneous interval (Bonferroni over bases and pairs) with
the variance over seeds. Two bases whose intervals lie on different sides of 0 have opposite effects
(the range test of Piantadosi and Gail 1993, Statistics in Medicine 12, 1239-1248).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from searchae.compare.matched_results import (
    RESOLUTION_DB,
    Estimates,
    Floats,
    MatchedResults,
    estimate,
)

CONFIDENCE_LEVEL = 0.95
SEQUENTIAL_SHARE = 0.55
"""The part of the permitted 5% that tests and intervals use after several looks."""


@dataclass(frozen=True)
class BaseDifference:
    """The difference between two choices in one base.

    Attributes:
        base: The base's index.
        mean_db: Mean PSNR of the pair's first choice minus that of its second, in dB.
        low_db: Lower end of the interval, simultaneous over all bases and pairs, in dB.
        high_db: Upper end, in dB.
        seeds: Number of seeds with which both were trained.
    """

    base: int
    mean_db: float
    low_db: float
    high_db: float
    seeds: int


@dataclass(frozen=True)
class PairDifference:
    """The difference between two choices.

    Attributes:
        first: Index of the choice with the better mean.
        second: Index of the other choice.
        mean_db: Mean PSNR of the first minus that of the second, in dB; never below 0. NaN if no
            base has trainings of both.
        low_db: Lower end of the confidence interval, in dB.
        high_db: Upper end of the confidence interval, in dB.
        half_width_db: Half the width of the interval that holds for all pairs at once
            (Bonferroni), in dB. The interval above is at most as wide.
        level: The confidence level of ``low_db`` to ``high_db``; 0.95 is claimed for a single
            pair, the rest pays for several pairs and looks.
        p: p-value of the test against no difference, of a single look and pair.
        p_adjusted: p-value with the corrections for several looks and pairs.
        degrees: Degrees of freedom of Student's t.
        shown: Whether the difference is significant: ``p_adjusted`` is below 0.05, and the
            interval excludes 0.
        by_base: The difference in each base that has trainings of both.
        opposite: Whether at least two bases have shown effects of different signs.
        varies: Whether effects of one size in all bases are rejected; see ``_varies``.
    """

    first: int
    second: int
    mean_db: float
    low_db: float
    high_db: float
    half_width_db: float
    level: float
    p: float
    p_adjusted: float
    degrees: float
    shown: bool
    by_base: tuple[BaseDifference, ...]
    opposite: bool
    varies: bool


@dataclass(frozen=True)
class ChoiceFigures:
    """The trainings of one choice.

    Attributes:
        name: The choice.
        mean_db: Mean PSNR over bases, seeds and images, in dB, of the trainings that count: see
            ``MatchedResults.counts``. NaN without trainings.
        trainings: Number of trainings.
        failed: How many of them diverged, died or ended near the mean training image.
        trains: Whether at least half of them ended clearly above the baseline.
    """

    name: str
    mean_db: float
    trainings: int
    failed: int
    trains: bool


@dataclass(frozen=True)
class MatchedVerdict:
    """What the experiment says about one parameter.

    Attributes:
        choices: The choices in the order of the results.
        pairs: The difference of each pair of choices, the smallest p-value first.
        best: Index of the choice with the highest PSNR where all else is equal, among those that
            train: the largest effect in a least squares fit of the cells' means by choice and base.
        bases: Number of bases with trainings.
        seeds: Largest number of seeds of a base.
    """

    choices: tuple[ChoiceFigures, ...]
    pairs: tuple[PairDifference, ...]
    best: int
    bases: int
    seeds: int


def analyse(results: MatchedResults, *, sequential: bool = True) -> MatchedVerdict:
    """Compares every pair of choices.

    Args:
        results: The trainings; a design that is still growing may be unbalanced.
        sequential: Whether the design's size was decided by looks at the half-widths.
    """
    found = estimate(results)
    pairs = _tested(results, found, error_rate(sequential=sequential))
    return MatchedVerdict(
        choices=tuple(_figures(results, c) for c in range(len(results.choices))),
        pairs=tuple(pairs),
        best=_best(results, pairs),
        bases=int(results.made.any((0, 2)).sum()),
        seeds=int(results.made.any(0).sum(1).max(initial=0)),
    )


def half_width(error_db: Floats, degrees: Floats, alpha: float) -> Floats:
    """Returns the half-width of Student's intervals of level ``1 - alpha``, in dB."""
    from scipy import special

    width: Floats = error_db * -special.stdtrit(degrees, alpha / 2)
    return width


def error_rate(*, sequential: bool) -> float:
    """Returns the error rate at which a parameter's tests are made, over all its pairs."""
    return (1 - CONFIDENCE_LEVEL) * (SEQUENTIAL_SHARE if sequential else 1.0)


def _best(results: MatchedResults, pairs: Sequence[PairDifference]) -> int:
    """Returns the index of the best choice."""
    means = results.cell_means_db
    trains = results.trains if results.trains.any() else np.ones(len(results.choices), dtype=bool)
    choices, bases = np.nonzero(np.isfinite(means) & trains[:, None])
    if not len(choices):
        return 0
    design = np.hstack([np.eye(means.shape[0])[choices], np.eye(means.shape[1])[bases]])
    fit = np.linalg.lstsq(design, means[choices, bases], rcond=None)[0][: len(trains)]
    best = int(np.where(trains, fit, -np.inf).argmax())
    # Pairs rest on the bases that have both, the fit on all of them: a shown pair decides.
    return next((p.first for p in pairs if p.shown and p.second == best), best)


def _tested(results: MatchedResults, found: Estimates, alpha: float) -> list[PairDifference]:
    """Tests the pairs in Holm's order."""
    from scipy import special

    ratio = np.nan_to_num(np.abs(found.mean) / found.error)
    p = 2 * special.stdtr(found.degrees, -ratio)
    all_at_once = half_width(found.error, found.degrees, alpha / len(p))
    all_shown, adjusted, tests, out = True, 0.0, len(p), []
    for number, i in enumerate(np.lexsort((-np.abs(found.mean), p))):
        if all_shown:  # Holm stops at the first pair that is not significant
            tests = len(p) - number
        adjusted = max(adjusted, min(1.0, p[i] * tests * (1 - CONFIDENCE_LEVEL) / alpha))
        all_shown = all_shown and bool(p[i] < alpha / tests)
        half = float(half_width(found.error[i], found.degrees[i], alpha / tests))
        by_base = _by_base(results, found, i, alpha)
        mean = abs(float(found.mean[i]))
        first, second = results.pairs[i] if not found.mean[i] < 0 else results.pairs[i][::-1]
        out.append(
            PairDifference(
                first=first,
                second=second,
                mean_db=mean,
                low_db=mean - half,
                high_db=mean + half,
                half_width_db=float(all_at_once[i]),
                level=1 - alpha / tests,
                p=float(p[i]),
                p_adjusted=adjusted,
                degrees=float(found.degrees[i]),
                shown=all_shown,
                by_base=by_base,
                opposite=any(b.low_db > 0 for b in by_base) and any(b.high_db < 0 for b in by_base),
                varies=_varies(results, found, i),
            )
        )
    return out


def _by_base(
    results: MatchedResults, found: Estimates, pair: int, alpha: float
) -> tuple[BaseDifference, ...]:
    first, second = results.pairs[pair]
    seeds = (results.counts[first] & results.counts[second]).sum(1)
    intervals = len(found.mean) * max(int((seeds > 0).sum()), 1)
    half = half_width(found.base_error[pair], found.base_degrees[pair], alpha / intervals)
    signed = found.by_base[pair] * (-1 if found.mean[pair] < 0 else 1)
    return tuple(
        BaseDifference(
            base=int(b),
            mean_db=float(signed[b]),
            low_db=float(signed[b] - half[b]),
            high_db=float(signed[b] + half[b]),
            seeds=int(seeds[b]),
        )
        for b in np.flatnonzero(seeds)
    )


def _varies(results: MatchedResults, found: Estimates, pair: int) -> bool:
    """Returns whether a pair's effects differ from base to base by more than noise and tuning.

    Cochran's test of homogeneity (Biometrics 10, 1954), with F instead of chi-squared since the
    bases' errors are estimates; at 5% over all pairs of choices that train.
    """
    from scipy import special

    first, second = results.pairs[pair]
    seeds = (results.counts[first] & results.counts[second]).sum(1)
    within = float(found.variances.within[pair])
    degrees = float(found.variances.within_degrees[pair])
    known = np.flatnonzero(seeds)
    if len(known) < 2 or degrees < 1 or not math.isfinite(within):
        return False
    effects = found.by_base[pair][known]
    # On the same test images, whose draw moves all bases' effects alike.
    noise = within / seeds[known] + float(found.variances.tuning[pair])
    weights = 1 / (noise + RESOLUTION_DB**2)
    mean = (weights * effects).sum() / weights.sum()
    statistic = float((weights * (effects - mean) ** 2).sum()) / (len(known) - 1)
    alpha = (1 - CONFIDENCE_LEVEL) / max(int(found.variances.steady.sum()), 1)
    return bool(special.fdtrc(len(known) - 1, degrees, statistic) < alpha)


def _figures(results: MatchedResults, choice: int) -> ChoiceFigures:
    by_base = results.cell_means_db[choice]
    return ChoiceFigures(
        name=results.choices[choice],
        mean_db=float(np.nanmean(by_base)) if np.isfinite(by_base).any() else float("nan"),
        trainings=int(results.made[choice].sum()),
        failed=int(results.not_trained[choice]),
        trains=bool(results.trains[choice]),
    )
