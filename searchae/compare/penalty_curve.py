"""What an L1 penalty costs and what it buys: PSNR and sparsity over a grid of its weight.

Each base of the regularizer is trained without the penalty and with each weight, all else equal: at
the learning rate that was tuned without it, with the same new seeds, measured on the test split.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.compare.cells import Cell
from searchae.compare.experiment import Experiment, ReadRecord, has_ended
from searchae.compare.matched_design import Design
from searchae.compare.matched_results import MatchedResults
from searchae.compare.matched_statistics import (
    CONFIDENCE_LEVEL,
    PairDifference,
    analyse,
    half_width,
)
from searchae.compare.verdict import span_text, without_infinities
from searchae.config import Parameter
from searchae.retrain import Results
from searchae.study import ListedTraining
from searchae.worker import TrainingRecord

L1_WEIGHT = "train.l1_weight"
WEIGHTS = 4
"""Number of weights: the decades up to the range's upper end."""
MAX_BASES, MAX_SEEDS = 6, 3
"""Bases and seeds of the curve, at most: fewer than of the comparison, since it has more steps."""
_PAIRS = {"clip": "clip+l1", "none": "l1"}
"""Regularizers without the penalty, each with the one that adds it."""


@dataclass(frozen=True)
class CurvePoint:
    """One weight of the penalty.

    Attributes:
        weight: The weight; 0 without the penalty.
        gain_db: Mean PSNR minus that without the penalty, in dB.
        low_db: Lower end of the interval of ``gain_db``, simultaneous over the weights, in dB.
        high_db: Upper end, in dB.
        psnr_db: Mean PSNR on the test split, in dB.
        near_zero: Share of test latents below 1e-3 in magnitude, a mean.
        hoyer: Hoyer's sparsity of the test latents, a mean.
        hoyer_low: Lower end of its 95% interval over bases.
        hoyer_high: Upper end.
        is_dominated: Whether another weight has a better PSNR and sparser latents.
        by_base_db: The gain in each base, in dB; None where trainings failed.
        is_opposite: Whether it is shown to be a gain in one base and a loss in another.
    """

    weight: float
    gain_db: float
    low_db: float
    high_db: float
    psnr_db: float
    near_zero: float
    hoyer: float
    hoyer_low: float
    hoyer_high: float
    is_dominated: bool
    by_base_db: tuple[float | None, ...]
    is_opposite: bool


@dataclass(frozen=True)
class PenaltyCurve:
    """PSNR and sparsity by the weight of the penalty.

    Attributes:
        bases: The bases as texts.
        seeds: Number of seeds.
        points: The weights, in order, 0 first.
    """

    bases: tuple[str, ...]
    seeds: int
    points: tuple[CurvePoint, ...]

    @property
    def sentence(self) -> str:
        """The weights whose effect on PSNR is shown, and the sparsest latents, as a sentence."""
        none, *weights = self.points
        shown = [p for p in weights if p.low_db > 0 or p.high_db < 0 or p.is_opposite]
        effects = "; ".join(f"{p.weight:g}: {_gain_text(p)}{self._spread(p)}" for p in shown)
        if not shown:
            most = max(weights, key=lambda p: abs(p.gain_db))
            effects = (
                f"no difference in PSNR shown (the largest, {most.weight:g}: {_gain_text(most)})"
            )
        sparsest = max(self.points, key=lambda p: p.hoyer)
        sparsity = (
            f"The sparsest latents, with {sparsest.weight:g}: {sparsest.near_zero:.1%} of them "
            f"near zero against {none.near_zero:.1%} without, Hoyer {sparsest.hoyer:.3f} "
            f"({sparsest.hoyer_low:.3f} to {sparsest.hoyer_high:.3f}) against {none.hoyer:.3f}"
            if sparsest.weight
            else "No weight made the latents sparser"
        )
        return f"l1_weight against no penalty: {effects}. {sparsity}"

    def _spread(self, point: CurvePoint) -> str:
        """Returns the bases with the least and the largest gain, if these are opposite effects."""
        if not point.is_opposite:
            return ""
        by_base = zip(point.by_base_db, self.bases, strict=True)
        known = [(gain_db, base) for gain_db, base in by_base if gain_db is not None]
        (low, worst), (high, best) = min(known), max(known)
        return f", from {low:+.2f} in {worst} to {high:+.2f} in {best}"

    @property
    def front(self) -> str:
        """The weights that no other one dominates, as a sentence."""
        kept = ", ".join(f"{p.weight:g}" for p in self.points if not p.is_dominated)
        return f"not dominated in PSNR and Hoyer's sparsity: {kept}"

    def document(self) -> dict[str, Any]:
        """Returns the curve as a JSON document."""
        document = {
            "bases": list(self.bases),
            "seeds": self.seeds,
            "sentence": self.sentence,
            "front": [p.weight for p in self.points if not p.is_dominated],
            "points": [asdict(p) for p in self.points],
        }
        found: dict[str, Any] = without_infinities(document)
        return found


def _gain_text(point: CurvePoint) -> str:
    return f"{point.gain_db:+.2f} dB ({span_text(point.low_db, point.high_db)})"


class PenaltyExperiment:
    """The trainings of a penalty's curve.

    Args:
        experiment: The experiment on the regularizer, whose bases and learning rates are used.
        weight: The searched range of the penalty's weight.
    """

    def __init__(self, experiment: Experiment, weight: Parameter) -> None:
        self._experiment = experiment
        without, with_penalty = next(
            pair for pair in _PAIRS.items() if set(pair) <= set(experiment.choices)
        )
        self._without = experiment.choices.index(without)
        self._with = experiment.choices.index(with_penalty)
        self.weights = _weights(weight)

    @classmethod
    def applies(cls, experiment: Experiment, weight: Parameter) -> bool:
        """Returns whether the study searches a regularizer with and without the penalty."""
        choices = set(experiment.choices)
        return (
            not weight.choices
            and experiment.parameter == "regularizer"
            and any(set(pair) <= choices for pair in _PAIRS.items())
        )

    def wanted(self, design: Design, results: Results) -> list[ListedTraining]:
        """Returns the trainings for a design of the regularizer's experiment.

        Args:
            design: Its newest complete design.
            results: The results so far.
        """
        return [
            training
            for b in self._bases(design, results)
            for s in range(self._seeds(design))
            for training in self._trainings(b, s, results)
        ]

    def curve(self, design: Design, results: Results, read: ReadRecord) -> PenaltyCurve | None:
        """Returns the curve; None before its trainings have ended, or if nets without it fail.

        Args:
            design: The newest complete design of the regularizer's experiment.
            results: The results so far.
            read: Reads measurements.
        """
        wanted = self.wanted(design, results)
        if not all(has_ended(results, t) for t in wanted):
            return None
        bases, seeds = self._bases(design, results), self._seeds(design)
        if not bases:
            return None
        records = [
            [[read(t.key) for t in self._trainings(b, s, results)] for s in range(seeds)]
            for b in bases
        ]
        names = tuple(self._experiment.bases[b] for b in bases)
        matched = MatchedResults(
            choices=("0", *(f"{w:g}" for w in self.weights)),
            psnr_db=_array(records),
            failed=_failed(records),
            baseline_db=self._experiment.baseline_db,
            population=self._experiment.population(results),
        )
        found = analyse(matched, sequential=False)
        pairs = _against_first(found.pairs)
        points = [
            _point(
                weight,
                found.choices[i].mean_db,
                pairs.get(i),
                _counted(records, i, matched.counts[i]),
                len(bases),
            )
            for i, weight in enumerate((0.0, *self.weights))
        ]
        return PenaltyCurve(names, seeds, tuple(_with_front(points)))

    def _bases(self, design: Design, results: Results) -> list[int]:
        cells = self._experiment.cells_of(design, results)
        used = self._experiment.used_bases(design.bases, results)
        return [b for b in used if (self._without, b) in cells][:MAX_BASES]

    def _seeds(self, design: Design) -> int:
        return min(design.seeds, MAX_SEEDS)

    def _trainings(self, base: int, seed: int, results: Results) -> list[ListedTraining]:
        """Returns the trainings of a base and seed: without the penalty, then by weight."""
        without: Cell = self._experiment.cells[self._without][base]
        penalised: Cell = self._experiment.cells[self._with][base]
        best = without.tuned(results).best
        assert best is not None  # the design is complete
        tuned = without.values_at(best)
        found = [without.measured_at(tuned, seed)]
        for weight in self.weights:
            values = {**tuned, **penalised.values, L1_WEIGHT: weight}
            found.append(penalised.measured_at(values, seed))
        return found


def _weights(weight: Parameter) -> tuple[float, ...]:
    """Returns the decades up to a range's upper end; its ends where there is none within."""
    highest = math.floor(math.log10(weight.high) + 1e-9)
    lowest = math.ceil(math.log10(weight.low) - 1e-9) if weight.low > 0 else highest - WEIGHTS
    decades = range(max(lowest, highest - WEIGHTS + 1), highest + 1)
    return tuple(10.0**e for e in decades) or (weight.low, weight.high)


Records = Sequence[Sequence[Sequence[TrainingRecord]]]
"""By base, seed and weight."""


def _array(records: Records) -> npt.NDArray[np.float64]:
    found = np.array([[[r.psnr_db for r in seed] for seed in base] for base in records])
    return np.moveaxis(found, 2, 0)  # (weights, bases, seeds, images)


def _counted(
    records: Records, weight: int, counts: npt.NDArray[np.bool_]
) -> list[list[TrainingRecord]]:
    """Returns the trainings of a weight that count, by base; bases without any are left out.

    Args:
        records: All trainings.
        weight: The weight's index.
        counts: Which of its trainings count: (bases, seeds).
    """
    by_base = [
        [seed[weight] for seed, counted in zip(base, row, strict=True) if counted]
        for base, row in zip(records, counts, strict=True)
    ]
    return [base for base in by_base if base]


def _failed(records: Records) -> npt.NDArray[np.bool_]:
    found = np.array([[[r.has_failed for r in seed] for seed in base] for base in records])
    return np.moveaxis(found, 2, 0)


def _against_first(pairs: Sequence[PairDifference]) -> dict[int, PairDifference]:
    """Returns the pairs with the first choice, by the other one's index."""
    return {max(p.first, p.second): p for p in pairs if 0 in (p.first, p.second)}


def _point(
    weight: float,
    mean_db: float,
    pair: PairDifference | None,
    records: Sequence[Sequence[TrainingRecord]],
    bases: int,
) -> CurvePoint:
    """Returns one weight's figures.

    Args:
        weight: The weight.
        mean_db: Its mean PSNR, in dB.
        pair: Its difference to no penalty; None for no penalty.
        records: Its trainings that count, by base and seed.
        bases: Number of bases, those without such a training included.
    """
    by_base = [statistics.fmean(r.hoyer for r in base) for base in records]
    half = _half_width(by_base)
    hoyer = statistics.fmean(by_base)
    gain_db = low_db = high_db = 0.0
    gains: Mapping[int, float] = {}
    if pair is not None:
        sign = -1 if pair.first == 0 else 1
        gain_db = sign * pair.mean_db
        low_db, high_db = sorted((sign * pair.low_db, sign * pair.high_db))
        gains = {b.base: sign * b.mean_db for b in pair.by_base}
    return CurvePoint(
        weight=weight,
        gain_db=gain_db,
        low_db=low_db,
        high_db=high_db,
        psnr_db=mean_db,
        near_zero=statistics.fmean(statistics.fmean(r.sparsity for r in base) for base in records),
        hoyer=hoyer,
        hoyer_low=max(0.0, hoyer - half),
        hoyer_high=min(1.0, hoyer + half),
        is_dominated=False,
        by_base_db=tuple(gains.get(b) for b in range(bases)),
        is_opposite=pair is not None and pair.opposite,
    )


def _half_width(values: Sequence[float]) -> float:
    """Returns the half-width of Student's 95% interval of a mean; infinite for one value."""
    if len(values) < 2:
        return math.inf
    error = np.array([statistics.stdev(values) / math.sqrt(len(values))])
    return float(half_width(error, np.array([len(values) - 1.0]), 1 - CONFIDENCE_LEVEL)[0])


def _with_front(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    return [
        replace(
            p,
            is_dominated=any(
                q.gain_db >= p.gain_db
                and q.hoyer >= p.hoyer
                and (q.gain_db, q.hoyer) != (p.gain_db, p.hoyer)
                for q in points
            ),
        )
        for p in points
    ]
