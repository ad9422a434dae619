"""What the trainings show of each parameter, as numbers and as a sentence."""

from __future__ import annotations

import statistics as plain
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from searchae.compare.kept_training import TrainingRecord
from searchae.compare.sides import Contest, SideChoice
from searchae.compare.statistics import RESAMPLES, Difference, Side, differences, resample_images
from searchae.retrain import FAILURE_VERBS

Trained = Mapping[tuple[int, int], TrainingRecord]
RNG_SEED = 20_070_601
"""Of the bootstrap: the same trainings give the same interval."""
ENOUGH = 3
"""Trials a side, and seeds, with which half a decibel is usually found."""
LOPSIDED = 2
"""A side with this many times as many trials as another had more chances."""


@dataclass(frozen=True)
class SideFigures:
    """One side on the test split: means over its trainings, and their deviation.

    Attributes:
        name: The choice.
        finished: Trials of the search with it.
        eligible: Those that did not end badly.
        trials: Those that stand for it.
        pruned: How many of these the search had stopped early.
        psnr_db: Mean over trainings and images, in dB.
        psnr_std_db: Standard deviation of the trainings' means, in dB; None of one.
        ssim: Mean.
        mse: Mean, on the [0, 1] scale.
        sparsity: Mean share of latents below 1e-3 in magnitude.
        diverged: Trainings that diverged, or died.
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
    """What was found of one parameter.

    Attributes:
        parameter: Its name.
        sides: Those that were tried, the best mean PSNR first.
        pairs: Differences of each pair, by index into ``sides``; empty with fewer than two sides.
        untried: Choices without a trial that ended well.
        wanted: Trials a side that were asked for.
        seeds: Over which all were trained.
    """

    parameter: str
    sides: tuple[SideFigures, ...]
    pairs: tuple[Difference, ...]
    untried: tuple[str, ...]
    wanted: int
    seeds: tuple[int, ...]

    @property
    def against_best(self) -> list[Difference]:
        """The differences to the side with the best mean, in the order of the sides."""
        return sorted((p for p in self.pairs if 0 in (p.first, p.second)), key=lambda p: p.second)

    @property
    def shown(self) -> bool:
        """Whether the best side is better than at least one other."""
        return any(p.shown for p in self.against_best)

    @property
    def sentence(self) -> str:
        """The answer."""
        if not self.sides:
            return f"{self.parameter}: no choice has a trial that ended well"
        best = self.sides[0].name
        if len(self.sides) == 1:
            return f"{self.parameter}: only {best} has a trial that ended well; nothing to compare"
        pairs = self.against_best
        better = [p for p in pairs if p.shown]
        same = [p for p in pairs if not p.shown]
        if not better:
            return f"{self.parameter}: no difference shown between {self._none(same)}"
        won = " and ".join(
            f"{self.sides[p.second].name} by {p.mean_db:.2f} dB ({self._interval(p, first=not i)})"
            for i, p in enumerate(better)
        )
        text = f"{self.parameter}: {best} beats {won}"
        if same:
            text += "; no difference shown to " + " and ".join(
                f"{self.sides[p.second].name} ({_span(p)})" for p in same
            )
        return text

    @property
    def notes(self) -> list[str]:
        """What one should know before believing it."""
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
        if len(self.sides) > 1 and (self.wanted < ENOUGH or len(self.seeds) < ENOUGH):
            short = [
                f"--{option} {ENOUGH}"
                for option, given in (("best", self.wanted), ("seeds", len(self.seeds)))
                if given < ENOUGH
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
            if most.finished >= LOPSIDED * least.finished:
                found.append(
                    f"{self.parameter}: the search tried {most.name} {most.finished} times and "
                    f"{least.name} {least.finished} times, so {most.name} had more chances to find "
                    "good settings"
                )
        return found

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
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

    def _none(self, pairs: Sequence[Difference]) -> str:
        names = [s.name for s in self.sides]
        if len(pairs) == 1:
            return f"{names[0]} and {names[1]} ({_span(pairs[0])})"
        largest = max(pairs, key=lambda p: p.mean_db)
        return (
            f"{', '.join(names)} (largest: {names[0]} over {names[largest.second]}, "
            f"{_span(largest)})"
        )

    def _interval(self, p: Difference, *, first: bool) -> str:
        span = f"{p.low_db:.2f} to {p.high_db:.2f}"
        if not first:
            return span
        return f"95% interval{'' if len(self.sides) == 2 else 's, all at once,'} {span}"


def _span(p: Difference) -> str:
    return f"{p.mean_db:.2f} dB, {p.low_db:.2f} to {p.high_db:.2f}"


def judge(
    contests: Sequence[Contest], trained: Trained, *, seeds: tuple[int, ...], best: int
) -> list[Verdict]:
    """Compares the sides of each parameter.

    Args:
        contests: What is compared.
        trained: Every training of their trials over the seeds.
        seeds: At least two.
        best: Trials a side that were asked for.
    """
    keys = sorted(
        {(t, s) for c in contests for side in c.tried for t in side.trials for s in seeds}
    )
    index = {key: i for i, key in enumerate(keys)}
    psnr_db = np.stack([trained[key].psnr_db for key in keys])
    # One draw of images for all: what is common to all trainings cancels in every comparison.
    means = resample_images(psnr_db, resamples=RESAMPLES, rng=np.random.default_rng(RNG_SEED))
    verdicts = []
    for contest in contests:
        # By mean; the order decides who is written as the first, not what is shown.
        order = sorted(contest.tried, key=lambda c: -_figures(c, trained, seeds).psnr_db)
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
                parameter=contest.parameter,
                sides=tuple(_figures(c, trained, seeds) for c in order),
                pairs=tuple(pairs),
                untried=tuple(s.name for s in contest.sides if not s.trials),
                wanted=best,
                seeds=seeds,
            )
        )
    return verdicts


def _figures(choice: SideChoice, trained: Trained, seeds: Sequence[int]) -> SideFigures:
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


def notes_of(verdicts: Iterable[Verdict]) -> list[str]:
    """Their notes; what is to be said of several parameters is said once."""
    parameters: dict[str, list[str]] = {}
    for parameter, _, text in (n.partition(": ") for v in verdicts for n in v.notes):
        parameters.setdefault(text, []).append(parameter)
    return [f"{', '.join(names)}: {text}" for text, names in parameters.items()]
