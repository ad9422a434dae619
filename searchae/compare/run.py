"""The use cases of ``searchae compare``: what is to be trained, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from searchae.bundle import write_json
from searchae.compare import page
from searchae.compare.kept_training import shown
from searchae.compare.ranking import Ranking, rank
from searchae.compare.sides import Contest, choose_sides, chosen_top
from searchae.compare.statistics import RESAMPLES
from searchae.compare.trainings import PlannedTraining, TrainingStore
from searchae.compare.verdict import Verdict, judge
from searchae.config import ProgressCallback
from searchae.errors import UserError
from searchae.report import comparison_file
from searchae.retrain import RetrainPlan, plan_retraining
from searchae.study import WINNER, StoredStudy, TrialRow


@dataclass(frozen=True)
class TrainingSchedule:
    """How each training is trained.

    Attributes:
        seeds: How many; counted up from the one after the search's.
        epochs: At most so many; unset: the search's own.
        patience: Of the plateau rule; unset: the search's own.
        device: Where.
        threads: CPU threads; unset: as many as the trial had.
        precision: ``auto``, ``fp32`` or ``bf16``; unset: the trials', or fp32 where they differ.
    """

    seeds: int
    epochs: int | None
    patience: int | None
    device: torch.device
    threads: int | None
    precision: str | None = None


class Comparison:
    """A comparison of the choices of parameters, and all that it takes."""

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

        Raises:
            UserError: There is nothing to compare.
        """
        self.stored, self.best = stored, best
        self.contests: list[Contest] = choose_sides(stored, by=by, best=best)
        trials = (t for c in self.contests if len(c.tried) > 1 for s in c.tried for t in s.trials)
        self.folder = _folder(artifacts, stored)
        self.result = comparison_file(artifacts, stored.name)
        self.plans = _plans(stored, trials, schedule)
        self.seeds = _seeds(stored, schedule)
        self.library = TrainingStore(stored, self.plans, self.seeds, self.folder)

    def run(
        self,
        *,
        data_dir: Path,
        out: Path | None,
        tell: Callable[[PlannedTraining], None],
        note: ProgressCallback,
    ) -> tuple[list[Verdict], dict[str, Any]]:
        """Trains what is missing, compares, and writes the page.

        Args:
            data_dir: Where data sets lie.
            out: The page; unset: ``compare.html`` in the comparison's folder.
            tell: Told of each training before it starts.
            note: Told what else goes on.

        Returns:
            The verdicts, and all of it as one JSON object.

        Raises:
            UserError: The images are not the study's, or a file cannot be written.
        """
        if not self.plans:
            each = "; ".join(f"{c.parameter}: {_tried(c)}" for c in self.contests)
            raise UserError(
                f"study {self.stored.name!r}: nothing to compare yet, since no parameter has two "
                f"choices with a trial that ended well ({each}); search on"
            )
        trained = self.library.train(data_dir=data_dir, tell=tell, note=note)
        contests = [c for c in self.contests if len(c.tried) > 1]
        for lone in (c for c in self.contests if len(c.tried) < 2):
            note(f"{lone.parameter}: nothing to compare: of trials that ended well {_tried(lone)}")
        test = self.library.splits(data_dir, note).test
        verdicts = judge(contests, trained, seeds=self.seeds, best=self.best)
        out = out or self.folder / "compare.html"
        document = {
            **self.about(),
            "test_images": len(test),
            "resamples": RESAMPLES,
            "comparisons": [v.document() for v in verdicts],
            "html": str(out),
        }
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            page.write_comparison(
                out,
                verdicts,
                trained,
                test[shown(len(test))].numpy(),
                study=self.stored.name,
                how_long=self.how_long,
            )
            write_json(self.result, document)
        except OSError as e:
            raise UserError(f"--out {out}: cannot be written: {e.strerror or e}") from e
        return verdicts, document

    def about(self) -> dict[str, Any]:
        """What is compared, as JSON holds it."""
        plan = next(iter(self.plans.values()), None)
        return {
            "study": self.stored.name,
            "by": [c.parameter for c in self.contests],
            "best": self.best,
            "seeds": list(self.seeds),
            "epochs": plan and plan.params.train.epochs,
            "patience": plan and plan.params.train.patience,
            "trainings": len(self.library.wanted),
            "data_hash": self.stored.data_hash,
        }

    @property
    def how_long(self) -> str:
        """The trainings, in words."""
        train = next(iter(self.plans.values())).params.train
        plateau = f", patience {train.patience}" if train.patience else ""
        return (
            f"{len(self.library.wanted)} trainings: {len(self.plans)} trials over the seeds "
            f"{', '.join(map(str, self.seeds))}, at most {train.epochs} epochs each{plateau}."
        )


class Reranking:
    """A study's best trials, to be ranked again over seeds."""

    def __init__(
        self, stored: StoredStudy, schedule: TrainingSchedule, *, top: int, artifacts: Path
    ) -> None:
        """Chooses the trials.

        Raises:
            UserError: No trial has trained to its end.
        """
        self.stored = stored
        self.rows: list[TrialRow] = chosen_top(stored, top)
        self.seeds = _seeds(stored, schedule)
        self._own_schedule = schedule.epochs is None and schedule.patience is None
        plans = _plans(stored, [r.number for r in self.rows], schedule)
        self.library = TrainingStore(stored, plans, self.seeds, _folder(artifacts, stored))

    def run(
        self, *, data_dir: Path, tell: Callable[[PlannedTraining], None], note: ProgressCallback
    ) -> tuple[Ranking, dict[str, Any]]:
        """Trains what is missing, ranks, and leaves the winner with the study.

        Returns:
            The ranking, and all of it as one JSON object.
        """
        trained = self.library.train(data_dir=data_dir, tell=tell, note=note)
        found = rank(
            self.rows,
            trained,
            seeds=self.seeds,
            baseline_db=self.stored.baseline_db,
            same_schedule=self._own_schedule,
        )
        first = found.winner
        kept = {"number": first.number, "seeds": list(self.seeds), "mean_db": first.mean_db}
        self.stored.study.set_user_attr(WINNER, kept)
        return found, {"study": self.stored.name, "top": len(self.rows), **found.document()}


def _folder(artifacts: Path, stored: StoredStudy) -> Path:
    return comparison_file(artifacts, stored.name).parent


def _seeds(stored: StoredStudy, schedule: TrainingSchedule) -> tuple[int, ...]:
    """The search's own is left out: the trials were chosen for how they did with it."""
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
        # Of a fleet of unlike machines: a choice must not win by where its trials ran.
        return {t: replace(plan, precision="fp32") for t, plan in plans.items()}
    return plans


def _tried(contest: Contest) -> str:
    names = [s.name for s in contest.tried]
    return f"only {names[0]} has one" if names else "no choice has one"
