"""The new ranking of the best trials behind ``searchae compare --top``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from searchae.compare.preparation import open_list
from searchae.compare.ranking import Ranking, rank_trials
from searchae.errors import StopAskedError, TimeUpError, UserError
from searchae.formatting import format_count
from searchae.launch import FleetRequest, Launcher
from searchae.retrain import ListRun, RecordFolder, RetrainPlan, plan_retraining
from searchae.study import (
    WINNER,
    ListedTraining,
    StoredStudy,
    TrialRow,
    require_searched,
    trial_row,
)
from searchae.tuning import StopRequest, Watcher


@dataclass(frozen=True)
class TopOptions:
    """Which trials are ranked again, and how.

    Attributes:
        top: Number of trials, at most.
        seeds: Number of seeds, counted up from the one after the search's; at least two.
        epochs: Epochs at most; None for the search's.
        patience: Epochs without improvement until early stopping; None for the search's.
        precision: ``auto``, ``fp32`` or ``bf16``; None for the trials', or fp32 if they differ.
    """

    top: int
    seeds: int
    epochs: int | None = None
    patience: int | None = None
    precision: str | None = None


class Reranking:
    """A new ranking of a study's best trials by several seeds."""

    def __init__(self, stored: StoredStudy, options: TopOptions) -> None:
        """Chooses the trials.

        Args:
            stored: The study.
            options: Which trials, and how.

        Raises:
            UserError: No trial has ended well.
        """
        require_searched(stored)
        self.stored, self._options = stored, options
        self.rows = top_trials(stored, options.top)
        first = stored.spec.seed + 1  # not the search's own, by which the trials were selected
        self.seeds = tuple(range(first, first + options.seeds))
        plans = self._plans()
        self.trainings = {
            (number, seed): ListedTraining(
                params=plan.params,
                seed=seed,
                precision=plan.precision,
                values=plan.trial.params,
            )
            # Ordered by seed, so that after an interruption all trials have as many trainings.
            for seed in self.seeds
            for number, plan in plans.items()
        }

    @property
    def shortfall(self) -> str:
        """That there are fewer trials than asked for, as a sentence; empty if there are not."""
        asked, found = self._options.top, len(self.rows)
        if found == asked:
            return ""
        return f"--top {asked}: there are results of {format_count(found, 'trial')} only"

    def run(
        self,
        request: FleetRequest,
        launcher: Launcher,
        watcher: Watcher,
        stop: StopRequest | None = None,
    ) -> tuple[Ranking, dict[str, Any]]:
        """Trains what is missing, ranks the trials, and stores the winner in the study.

        Args:
            request: The workers.
            launcher: Where they run.
            watcher: Shows the progress.
            stop: Setting it ends the run like an interrupt.

        Returns:
            The ranking, and all of it as a JSON document.

        Raises:
            TimeUpError: The time was up before all were trained.
            DataError: The data here differs from the study's.
        """
        stored = self.stored
        if self.shortfall:
            watcher.note(self.shortfall)
        listed, _ = open_list(stored, request, launcher, watcher.note)
        wanted = list(self.trainings.values())
        run = ListRun(
            listed, lambda _results: wanted, request, launcher, watcher, stop or StopRequest()
        )
        try:
            results = run.run()
        except (KeyboardInterrupt, StopAskedError):
            found_yet = run.results()
            done = sum(t.key in found_yet and found_yet[t.key].is_finished for t in wanted)
            count = format_count(len(wanted), "training")
            watcher.note(f"unfinished: {done} of {count} done and kept; no ranking before the last")
            raise
        done = sum(results[t.key].is_finished for t in wanted)
        if done < len(wanted):
            raise TimeUpError(
                f"study {stored.name!r}: the time was up (--max-hours) before all were trained: "
                f"{done} of {format_count(len(wanted), 'training')} done and kept; the same "
                "command again continues"
            )
        folder = RecordFolder(request.artifacts, listed)
        same = self._options.epochs is None and self._options.patience is None
        found = rank_trials(
            self.rows,
            {place: folder.read(t.key) for place, t in self.trainings.items()},
            seeds=self.seeds,
            baseline_db=stored.baseline_db,
            same_schedule=same and all(r.state == "complete" for r in self.rows),
        )
        first = found.winner
        kept = {"number": first.number, "seeds": list(self.seeds), "mean_db": first.mean_db}
        stored.study.set_user_attr(WINNER, kept)
        return found, {"study": stored.name, "top": len(self.rows), **found.document()}

    def _plans(self) -> dict[int, RetrainPlan]:
        options, epochs, patience = self._options, "search", self._options.patience
        if options.epochs is not None or patience is not None:
            epochs = str(options.epochs or self.stored.spec.epochs)
            if patience is None:
                patience = int(self.stored.spec.fixed["train"].get("patience", 0))
        plans = {
            row.number: plan_retraining(
                self.stored,
                trial=str(row.number),
                epochs=epochs,
                patience=patience,
                device=torch.device("cpu"),
                precision=options.precision,
            )
            for row in self.rows
        }
        if len({plan.precision for plan in plans.values()}) > 1:
            # The trials ran on different machines; that must not decide which one wins.
            return {t: replace(plan, precision="fp32") for t, plan in plans.items()}
        return plans


def top_trials(stored: StoredStudy, count: int) -> list[TrialRow]:
    """Returns the study's best trials: completed ones, then the pruned ones that came furthest.

    Args:
        stored: The study.
        count: Trials, at most.

    Raises:
        UserError: No trial has trained to its end.
    """
    rows = [trial_row(stored.spec, t) for t in stored.study.get_trials(deepcopy=False)]
    own = [r for r in rows if not r.imported]
    if not any(r.has_result for r in own):
        raise UserError(
            f"study {stored.name!r}: no trial has trained to its end yet; see searchae status"
        )
    good = [r for r in own if r.has_result or _is_good_so_far(r)]
    return sorted(good, key=_rank)[:count]


def _is_good_so_far(row: TrialRow) -> bool:
    return row.state == "pruned" and not row.outcome and row.psnr_db is not None


def _rank(row: TrialRow) -> tuple[float, ...]:
    reached = math.inf if row.state == "complete" else row.epochs
    return (-reached, -(row.psnr_db or 0.0), row.number)
