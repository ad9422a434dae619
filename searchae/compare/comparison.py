"""What is compared: the parameters, their bases, and the experiments on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from optuna.trial import TrialState

from searchae.compare.base_names import base_names
from searchae.compare.bases import (
    MAX_BASES,
    SearchedTrial,
    SearchedTrials,
    choose_factor,
    compared_parameters,
)
from searchae.compare.cells import (
    Cell,
    CellMaker,
    Schedule,
)
from searchae.compare.experiment import Experiment, ReadRecord
from searchae.compare.matched_design import Limits
from searchae.compare.tuning import FINAL_TRAININGS
from searchae.config import comparable
from searchae.data import Splits
from searchae.errors import UserError
from searchae.formatting import format_count, format_duration, format_list
from searchae.study import (
    SPLITS,
    StoredStudy,
    find_training_list,
    require_searched,
    trial_row,
)
from searchae.training import LEARNED_DB, Precision, mean_image_psnr_per_image, pick_precision
from searchae.worker import TrainingRecord


@dataclass(frozen=True)
class ComparisonOptions:
    """What is compared, and how far.

    Attributes:
        by: Names of the parameters; empty for the default ones.
        has_l1_curve: Whether PSNR and sparsity are also measured over a grid of ``l1_weight``,
            where regularizers with and without the penalty are compared.
        until_db: Bases and seeds are added until each interval's half-width is at most this, in dB.
        max_trainings: No further bases or seeds are added once this many trainings are planned.
        epochs: Epochs at most of the measured trainings; None for the search's.
        patience: Their patience; None for the search's.
        precision: ``auto``, ``fp32`` or ``bf16``; None for the trials', or fp32 if they differ.
    """

    by: Sequence[str] = ()
    has_l1_curve: bool = True
    until_db: float = 0.3
    max_trainings: int | None = None
    epochs: int | None = None
    patience: int | None = None
    precision: str | None = None


class Comparison:
    """A comparison of the choices of parameters by matched experiments."""

    def __init__(self, stored: StoredStudy, options: ComparisonOptions) -> None:
        """Chooses the bases; reads and trains nothing.

        Args:
            stored: The study.
            options: What is compared.

        Raises:
            UserError: There is nothing to compare, or a name is not valid.
        """
        require_searched(stored)
        if not (math.isfinite(options.until_db) and options.until_db > 0):
            raise UserError(f"--until {options.until_db:g}: give a number of dB above 0")
        self.stored, self.options = stored, options
        trials = SearchedTrials.of(stored)
        # By the finals a choice is trained as a trial is: it comes to something where it is good.
        trains_db = stored.baseline_db + LEARNED_DB
        self._least_db = max(trials.good_db, trains_db)
        parameters = compared_parameters(stored.spec, options.by)
        self.factors = [choose_factor(stored.spec, p, trials) for p in parameters]
        self.schedule = Schedule(
            epochs=options.epochs,
            patience=options.patience,
            precision=_precision(options.precision, trials.good),
            first_seed=stored.spec.seed + 1,
            images=_training_images(stored),
        )
        self._cells = [
            CellMaker(
                stored.spec,
                f,
                trials.good,
                self.schedule,
                trains_db=trains_db,
            )
            for f in self.factors
        ]

    def experiments(self, splits: Splits | None, read: ReadRecord) -> list[Experiment]:
        """Returns the experiment on each parameter.

        Args:
            splits: The study's images; None to plan the first look only.
            read: Reads measurements.
        """
        baseline_db = np.zeros(1)
        if splits is not None:
            baseline_db = mean_image_psnr_per_image(splits.train, splits.test).numpy()
        made = []
        for factor, cells in zip(self.factors, self._cells, strict=True):
            key = factor.parameter.key
            made.append(
                Experiment(
                    factor,
                    cells,
                    Limits(self.options.until_db, bases=min(len(factor.bases), MAX_BASES)),
                    baseline_db=baseline_db,
                    read=read,
                    least_db=self._least_db,
                    base_names=base_names(
                        factor.bases, self.stored.spec, leave_out=[key, *factor.tuned]
                    ),
                )
            )
        return made

    @property
    def not_compared(self) -> list[str]:
        """Which searched parameters are not compared, and why, a sentence each."""
        tuned = {key for factor in self.factors for key in factor.tuned}
        ranges = [p for p in self.stored.spec.space if not p.choices]
        anew = [p.name for p in ranges if p.key in tuned]
        others = [p.name for p in ranges if p.key not in tuned]
        compared = {factor.parameter.name for factor in self.factors}
        unnamed = [name for name in comparable(self.stored.spec.space) if name not in compared]
        found = []
        if anew:
            found.append(
                f"not compared: {format_list(anew)} (searched over a range, which has no choices; "
                "tuned anew for each choice of the others)"
            )
        if others:
            found.append(
                f"not compared: {format_list(others)} (searched over a range, which has no "
                "choices; as in the trials that the comparison starts from)"
            )
        if unnamed and not self.options.by:
            found.append(
                f"not compared: {format_list(unnamed)} (to compare instead: "
                f"{' '.join(f'--by {name}' for name in unnamed)})"
            )
        return found

    def expected_text(self, *, done: int, workers: int) -> str:
        """Returns about how long the first comparisons take, as a line for the user.

        Args:
            done: Trainings that have ended already.
            workers: How many are trained at once.
        """
        plan = self.estimate()
        count, seconds = plan["trainings"], plan["seconds"]
        then = f"more follow until each difference is known within {self.options.until_db:g} dB"
        if done >= count:
            return f"{done} trainings are done, about as many as the first answers take; {then}"
        trained = f"{format_count(count, 'training')}{f', {done} of them done' if done else ''}"
        if seconds is None:
            return f"expected: about {trained} until the first answers; {then}"
        time = format_duration(seconds * (count - done) / count / workers)
        return (
            f"expected: about {time} with {format_count(workers, 'worker')} until the first "
            f"answers (about {trained}); {then}"
        )

    def _ended(self) -> int:
        """Returns how many trainings of this study have ended, whatever they were made for."""
        listed = find_training_list(self.stored)
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return sum(t.state in ended for t in listed.trials().values()) if listed else 0

    def estimate(self) -> dict[str, Any]:
        """Returns what the first look takes, as a JSON document.

        ``trainings``, of which so many are ``done``, and ``seconds`` of one worker for all.
        """
        sides: list[dict[str, Any]] = []
        cells: dict[str, tuple[Cell, int]] = {}  # shared by all parameters
        for experiment in self.experiments(None, _no_records):
            least = experiment.first_look()
            sides.append(
                {
                    "parameter": experiment.parameter,
                    "choices": list(experiment.choices),
                    "bases": list(experiment.bases[: least.bases]),
                    "seeds": least.seeds,
                    "tries": experiment.tries * least.bases * len(experiment.choices),
                    "trainings": least.seeds * least.bases * len(experiment.choices),
                }
            )
            for cell in (c for row in experiment.cells for c in row[: least.bases]):
                _, seeds = cells.get(cell.group, (cell, 0))
                cells[cell.group] = cell, max(least.seeds, seeds)
        counts = [_expected(cell, seeds) for cell, seeds in cells.values()]
        seconds = _epoch_seconds(self.stored) * sum(epochs for _, epochs in counts)
        return {
            "study": self.stored.name,
            "until_db": self.options.until_db,
            "sides": sides,
            "not_compared": self.not_compared,
            "trainings": sum(trainings for trainings, _ in counts),
            "done": self._ended(),
            "seconds": seconds or None,
        }


def _expected(cell: Cell, seeds: int) -> tuple[int, int]:
    """Returns how many trainings a cell probably takes, and how many epochs at most."""
    finals = FINAL_TRAININGS if cell.tries else 0
    parts = [
        (cell.tries, cell.attempt(cell.start)),
        (finals, cell.final_attempt(cell.start, 0)),
        (seeds, cell.measured(cell.start, 0)),
    ]
    return sum(n for n, _ in parts), sum(n * t.params.train.epochs for n, t in parts)


def _no_records(key: str) -> TrainingRecord:
    raise AssertionError(f"nothing was measured yet: {key}")


def _precision(name: str | None, good: Sequence[SearchedTrial]) -> Precision:
    """Returns the precision of all trainings: the trials' own, if they have one in common."""
    used = {t.precision for t in good}
    return pick_precision(name or (used.pop() if len(used) == 1 else "fp32"), torch.device("cpu"))


def _training_images(stored: StoredStudy) -> int | None:
    images = stored.study.user_attrs.get(SPLITS, {}).get("train")
    return images if isinstance(images, int) and images > 0 else None


def _epoch_seconds(stored: StoredStudy) -> float:
    """Returns the mean duration of an epoch in the search, in seconds; 0 if it is not known."""
    rows = [trial_row(stored.spec, t) for t in stored.study.get_trials(deepcopy=False)]
    timed = [(r.seconds, r.epochs) for r in rows if r.seconds and r.epochs]
    return sum(s for s, _ in timed) / sum(e for _, e in timed) if timed else 0.0
