"""The result of a comparison for each parameter, as numbers and as a sentence."""

from __future__ import annotations

import statistics as plain
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from searchae.compare.choices import ParameterSides, SideChoice
from searchae.compare.statistics import RESAMPLES, Difference, Side, differences, resample_images
from searchae.compare.training_record import TrainingRecord
from searchae.retrain import FAILURE_VERBS

TrainingRecords = Mapping[tuple[int, int], TrainingRecord]
RNG_SEED = 20_070_601
"""Seed of the bootstrap: the same trainings give the same intervals."""
RECOMMENDED_MIN = 3
"""Trials per side, and seeds, with which a difference of 0.5 dB is usually detected."""
UNBALANCED_FACTOR = 2
"""Ratio of two sides' numbers of searched trials from which on a note warns of it."""


@dataclass(frozen=True)
class SideFigures:
    """The metrics of one side on the test split: means over its trainings.

    Attributes:
        name: The choice.
        finished: Number of the search's trials with it.
        eligible: Number of those that did not end badly.
        trials: Numbers of the trials that were trained again.
        pruned: How many of these the search had pruned.
        psnr_db: Mean over trainings and images, in dB.
        psnr_std_db: Sample standard deviation of the trainings' means, in dB; None for one
            training.
        ssim: Mean over trainings and images.
        mse: The same, on the [0, 1] scale.
        sparsity: Mean share of latents below 1e-3 in magnitude.
        diverged: Number of trainings that diverged or died.
    """

    name: str
    finished: int
    eligible: int
    trials: tuple[int, ...]
    pruned: int
    psnr_db: float
    psnr_std_db: float | None
    ssim: float
    mse: float
    sparsity: float
    diverged: int


@dataclass(frozen=True)
class Verdict:
    """The result for one parameter.

    Attributes:
        parameter: The parameter's name.
        sides: The choices with trials, the best mean PSNR first.
        pairs: The difference of each pair of sides, by index into ``sides``; empty with fewer
            than two sides.
        untried: Choices without a trial that ended well.
        wanted: Requested number of trials per side.
        seeds: The seeds of the trainings.
    """

    parameter: str
    sides: tuple[SideFigures, ...]
    pairs: tuple[Difference, ...]
    untried: tuple[str, ...]
    wanted: int
    seeds: tuple[int, ...]

    @property
    def against_best(self) -> list[Difference]:
        """The pairs with the best side, in the order of the other sides."""
        return sorted((p for p in self.pairs if 0 in (p.first, p.second)), key=lambda p: p.second)

    @property
    def shown(self) -> bool:
        """Whether the best side is significantly better than at least one other."""
        return any(p.shown for p in self.against_best)

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        if not self.sides:
            return f"{self.parameter}: no choice has a trial that ended well"
        best = self.sides[0].name
        if len(self.sides) == 1:
            return f"{self.parameter}: only {best} has a trial that ended well; nothing to compare"
        pairs = self.against_best
        better = [p for p in pairs if p.shown]
        same = [p for p in pairs if not p.shown]
        if not better:
            return f"{self.parameter}: no difference shown between {self._no_difference_text(same)}"
        won = " and ".join(
            f"{self.sides[p.second].name} by {p.mean_db:.2f} dB ({self._interval(p, first=not i)})"
            for i, p in enumerate(better)
        )
        text = f"{self.parameter}: {best} beats {won}"
        if same:
            text += "; no difference shown to " + " and ".join(
                f"{self.sides[p.second].name} ({_interval_text(p)})" for p in same
            )
        return text

    @property
    def notes(self) -> list[str]:
        """Limitations of the result, one sentence each."""
        found = [f"{self.parameter}: {name} has no trial that ended well" for name in self.untried]
        for s in self.sides:
            if len(s.trials) < self.wanted:
                few = f"{s.name} has {len(s.trials)} trial{'s' * (len(s.trials) != 1)}"
                found.append(f"{self.parameter}: {few}, not {self.wanted}, that ended well")
            if s.pruned:
                found.append(
                    f"{self.parameter}: {s.pruned} of the {len(s.trials)} trials of {s.name} had "
                    "been stopped early by the search; they were trained in full here"
                )
            if s.diverged:
                found.append(
                    f"{self.parameter}: {s.diverged} trainings of {s.name} diverged or died"
                )
        if len(self.sides) > 1 and (
            self.wanted < RECOMMENDED_MIN or len(self.seeds) < RECOMMENDED_MIN
        ):
            short = [
                f"--{option} {RECOMMENDED_MIN}"
                for option, given in (("best", self.wanted), ("seeds", len(self.seeds)))
                if given < RECOMMENDED_MIN
            ]
            found.append(
                f"{self.parameter}: from so few trainings intervals are wide; {' '.join(short)} or "
                "more makes them narrower"
            )
        if len(self.sides) > 1 and all(len(s.trials) == 1 for s in self.sides):
            found.append(
                f"{self.parameter}: one trial a side: this says which of these settings is "
                "better, not which choice"
            )
        if len(self.sides) > 1:
            most = max(self.sides, key=lambda s: s.finished)
            least = min(self.sides, key=lambda s: s.finished)
            if most.finished >= UNBALANCED_FACTOR * least.finished:
                found.append(
                    f"{self.parameter}: the search tried {most.name} {most.finished} times and "
                    f"{least.name} {least.finished} times, so {most.name} had more chances to find "
                    "good settings"
                )
        return found

    def document(self) -> dict[str, Any]:
        """Returns the result as a JSON document."""
        names = [s.name for s in self.sides]
        return {
            "parameter": self.parameter,
            "sentence": self.sentence,
            "difference_shown": self.shown,
            "sides": [{**asdict(s), "trials": list(s.trials)} for s in self.sides],
            "pairs": [
                {**asdict(p), "first": names[p.first], "second": names[p.second]}
                for p in self.pairs
            ],
            "untried": list(self.untried),
            "notes": self.notes,
        }

    def _no_difference_text(self, pairs: Sequence[Difference]) -> str:
        names = [s.name for s in self.sides]
        if len(pairs) == 1:
            return f"{names[0]} and {names[1]} ({_interval_text(pairs[0])})"
        largest = max(pairs, key=lambda p: p.mean_db)
        return (
            f"{', '.join(names)} (largest: {names[0]} over {names[largest.second]}, "
            f"{_interval_text(largest)})"
        )

    def _interval(self, p: Difference, *, first: bool) -> str:
        span = f"{p.low_db:.2f} to {p.high_db:.2f}"
        if not first:
            return span
        return f"95% interval{'' if len(self.sides) == 2 else 's, all at once,'} {span}"


def _interval_text(p: Difference) -> str:
    return f"{p.mean_db:.2f} dB, {p.low_db:.2f} to {p.high_db:.2f}"


def compare_sides(
    compared: Sequence[ParameterSides],
    trained: TrainingRecords,
    *,
    seeds: tuple[int, ...],
    best: int,
) -> list[Verdict]:
    """Compares the sides of each parameter.

    Args:
        compared: The parameters with their sides.
        trained: The trainings of all their trials with all seeds.
        seeds: The seeds, at least two.
        best: Requested number of trials per side.
    """
    keys = sorted(
        {(t, s) for c in compared for side in c.tried for t in side.trials for s in seeds}
    )
    index = {key: i for i, key in enumerate(keys)}
    psnr_db = np.stack([trained[key].psnr_db for key in keys])
    # The same images are drawn for all trainings, so that their common variation cancels.
    means = resample_images(psnr_db, resamples=RESAMPLES, rng=np.random.default_rng(RNG_SEED))
    verdicts = []
    for parameter in compared:
        # The order affects only how the result is written.
        order = sorted(parameter.tried, key=lambda c: -_side_figures(c, trained, seeds).psnr_db)
        sides = [
            Side(
                np.array([[index[t, s] for s in seeds] for t in choice.trials]),
                selected=choice.eligible > len(choice.trials),
            )
            for choice in order
        ]
        rng = np.random.default_rng(RNG_SEED)
        pairs = differences(psnr_db, sides, image_means=means, rng=rng) if len(sides) > 1 else []
        verdicts.append(
            Verdict(
                parameter=parameter.parameter,
                sides=tuple(_side_figures(c, trained, seeds) for c in order),
                pairs=tuple(pairs),
                untried=tuple(s.name for s in parameter.sides if not s.trials),
                wanted=best,
                seeds=seeds,
            )
        )
    return verdicts


def _side_figures(
    choice: SideChoice, trained: TrainingRecords, seeds: Sequence[int]
) -> SideFigures:
    records = [trained[t, s] for t in choice.trials for s in seeds]
    psnrs = [float(r.psnr_db.mean()) for r in records]
    return SideFigures(
        name=choice.name,
        finished=choice.finished,
        eligible=choice.eligible,
        trials=choice.trials,
        pruned=choice.pruned,
        psnr_db=plain.fmean(psnrs),
        psnr_std_db=plain.stdev(psnrs) if len(psnrs) > 1 else None,
        ssim=plain.fmean(float(r.ssim.mean()) for r in records),
        mse=plain.fmean(float(r.mse.mean()) for r in records),
        sparsity=plain.fmean(r.sparsity for r in records),
        diverged=sum(r.ended in FAILURE_VERBS for r in records),
    )


def combined_notes(verdicts: Iterable[Verdict]) -> list[str]:
    """Returns all notes; a note on several parameters is listed once, with all their names."""
    parameters: dict[str, list[str]] = {}
    for parameter, _, text in (n.partition(": ") for v in verdicts for n in v.notes):
        parameters.setdefault(text, []).append(parameter)
    return [f"{', '.join(names)}: {text}" for text, names in parameters.items()]
