"""The two functions of ``searchae compare``: comparing choices, and ranking the best trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from searchae.bundle import write_json
from searchae.compare import page
from searchae.compare.choices import ParameterSides, choose_sides, top_trials
from searchae.compare.ranking import Ranking, rank_trials
from searchae.compare.statistics import RESAMPLES
from searchae.compare.training_record import shown_indices
from searchae.compare.trainings import PlannedTraining, TrainingStore
from searchae.compare.verdict import TrainingRecords, Verdict, compare_sides
from searchae.config import ProgressCallback
from searchae.errors import UserError
from searchae.report import comparison_file
from searchae.retrain import RetrainPlan, plan_retraining
from searchae.study import WINNER, StoredStudy, TrialRow


@dataclass(frozen=True)
class TrainingSchedule:
    """How each trial is trained.

    Attributes:
        seeds: Number of seeds, counted up from the one after the search's.
        epochs: Epochs at most; None for the search's.
        patience: Epochs without improvement until early stopping; None for the search's.
        device: The device.
        threads: CPU threads; None for as many as the trial had in the search.
        precision: ``auto``, ``fp32`` or ``bf16``; None for the trials', or fp32 if they differ.
    """

    seeds: int
    epochs: int | None
    patience: int | None
    device: torch.device
    threads: int | None
    precision: str | None = None


class Comparison:
    """A comparison of the choices of parameters."""

    def __init__(
        self,
        stored: StoredStudy,
        schedule: TrainingSchedule,
        *,
        by: Sequence[str] = (),
        best: int,
        artifacts: Path,
    ) -> None:
        """Chooses the trials.

        Args:
            stored: The study.
            schedule: How each trial is trained.
            by: Names of the parameters to compare; empty for the default ones.
            best: Trials per choice, at most.
            artifacts: The study's artifact folder.

        Raises:
            UserError: There is nothing to compare, or a name is not valid.
        """
        self.stored, self.best = stored, best
        self.compared: list[ParameterSides] = choose_sides(stored, by=by, best=best)
        trials = (t for c in self.compared if len(c.tried) > 1 for s in c.tried for t in s.trials)
        self.folder = _folder(artifacts, stored)
        self.result = comparison_file(artifacts, stored.name)
        self.plans = _plans(stored, trials, schedule)
        self.seeds = _seeds(stored, schedule)
        self.store = TrainingStore(stored, self.plans, self.seeds, self.folder)

    def run(
        self,
        *,
        data_dir: Path,
        out: Path | None,
        on_training: Callable[[PlannedTraining], None],
        note: ProgressCallback,
    ) -> tuple[list[Verdict], dict[str, Any]]:
        """Trains what is missing, compares the sides, and writes the page.

        Args:
            data_dir: The folder of the data sets.
            out: The HTML page; None for ``compare.html`` in the comparison's folder.
            on_training: Called before each training.
            note: Called with other progress messages.

        Returns:
            The result for each parameter, and all of it as a JSON document.

        Raises:
            UserError: There is nothing to compare, or a file cannot be written.
            DataError: The data here differs from the study's.
        """
        if not self.plans:
            each = "; ".join(f"{c.parameter}: {_tried(c)}" for c in self.compared)
            raise UserError(
                f"study {self.stored.name!r}: nothing to compare yet, since no parameter has two "
                f"choices with a trial that ended well ({each}); search on"
            )
        trained = self.store.train(data_dir=data_dir, on_training=on_training, note=note)
        compared = [c for c in self.compared if len(c.tried) > 1]
        for lone in (c for c in self.compared if len(c.tried) < 2):
            note(f"{lone.parameter}: nothing to compare: of trials that ended well {_tried(lone)}")
        test = self.store.splits(data_dir, note).test
        verdicts = compare_sides(compared, trained, seeds=self.seeds, best=self.best)
        out = out or self.folder / "compare.html"
        document = {
            **self.about(),
            "test_images": len(test),
            "resamples": RESAMPLES,
            "comparisons": [v.document() for v in verdicts],
            "html": str(out),
        }
        try:
            self._write(out, verdicts, trained, test, document)
        except OSError as e:
            raise UserError(f"--out {out}: cannot be written: {e.strerror or e}") from e
        return verdicts, document

    def _write(
        self,
        out: Path,
        verdicts: Sequence[Verdict],
        trained: TrainingRecords,
        test: Tensor,
        document: dict[str, Any],
    ) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        page.write_comparison(
            out,
            verdicts,
            trained,
            test[shown_indices(len(test))].numpy(),
            study=self.stored.name,
            how_long=self.how_long,
        )
        write_json(self.result, document)

    def about(self) -> dict[str, Any]:
        """Returns what is compared as a JSON document."""
        plan = next(iter(self.plans.values()), None)
        return {
            "study": self.stored.name,
            "by": [c.parameter for c in self.compared],
            "best": self.best,
            "seeds": list(self.seeds),
            "epochs": plan and plan.params.train.epochs,
            "patience": plan and plan.params.train.patience,
            "trainings": len(self.store.wanted),
            "data_hash": self.stored.data_hash,
        }

    @property
    def how_long(self) -> str:
        """A sentence on the number and the epochs of the trainings."""
        train = next(iter(self.plans.values())).params.train
        plateau = f", patience {train.patience}" if train.patience else ""
        return (
            f"{len(self.store.wanted)} trainings: {len(self.plans)} trials over the seeds "
            f"{', '.join(map(str, self.seeds))}, at most {train.epochs} epochs each{plateau}."
        )


class Reranking:
    """A new ranking of a study's best trials by several seeds."""

    def __init__(
        self, stored: StoredStudy, schedule: TrainingSchedule, *, top: int, artifacts: Path
    ) -> None:
        """Chooses the trials.

        Args:
            stored: The study.
            schedule: How each trial is trained.
            top: Number of trials, at most.
            artifacts: The study's artifact folder.

        Raises:
            UserError: No trial has trained to its end.
        """
        self.stored = stored
        self.rows: list[TrialRow] = top_trials(stored, top)
        self.seeds = _seeds(stored, schedule)
        self._same_schedule = schedule.epochs is None and schedule.patience is None
        plans = _plans(stored, [r.number for r in self.rows], schedule)
        self.store = TrainingStore(stored, plans, self.seeds, _folder(artifacts, stored))

    def run(
        self,
        *,
        data_dir: Path,
        on_training: Callable[[PlannedTraining], None],
        note: ProgressCallback,
    ) -> tuple[Ranking, dict[str, Any]]:
        """Trains what is missing, ranks the trials, and stores the winner in the study.

        Args:
            data_dir: The folder of the data sets.
            on_training: Called before each training.
            note: Called with other progress messages.

        Returns:
            The ranking, and all of it as a JSON document.

        Raises:
            DataError: The data here differs from the study's.
        """
        trained = self.store.train(data_dir=data_dir, on_training=on_training, note=note)
        found = rank_trials(
            self.rows,
            trained,
            seeds=self.seeds,
            baseline_db=self.stored.baseline_db,
            same_schedule=self._same_schedule,
        )
        first = found.winner
        kept = {"number": first.number, "seeds": list(self.seeds), "mean_db": first.mean_db}
        self.stored.study.set_user_attr(WINNER, kept)
        return found, {"study": self.stored.name, "top": len(self.rows), **found.document()}


def _folder(artifacts: Path, stored: StoredStudy) -> Path:
    return comparison_file(artifacts, stored.name).parent


def _seeds(stored: StoredStudy, schedule: TrainingSchedule) -> tuple[int, ...]:
    """Returns seeds without the search's own, by which the trials were selected."""
    first = stored.spec.seed + 1
    return tuple(range(first, first + schedule.seeds))


def _plans(
    stored: StoredStudy, trials: Iterable[int], schedule: TrainingSchedule
) -> dict[int, RetrainPlan]:
    epochs, patience = "search", schedule.patience
    if schedule.epochs is not None or patience is not None:
        epochs = str(schedule.epochs or stored.spec.epochs)
        if patience is None:
            patience = int(stored.spec.fixed["train"].get("patience", 0))
    plans = {
        t: plan_retraining(
            stored,
            trial=str(t),
            epochs=epochs,
            patience=patience,
            device=schedule.device,
            threads=schedule.threads,
            precision=schedule.precision,
        )
        for t in sorted(set(trials))
    }
    if len({plan.precision for plan in plans.values()}) > 1:
        # The trials ran on different machines; that must not decide which choice wins.
        return {t: replace(plan, precision="fp32") for t, plan in plans.items()}
    return plans


def _tried(parameter: ParameterSides) -> str:
    names = [s.name for s in parameter.tried]
    return f"only {names[0]} has one" if names else "no choice has one"
