"""Summarizes a study for tables, pages and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from searchae.config import StudySpec, readable_params, untried_choices
from searchae.formatting import shown_difference
from searchae.search import expected_epochs, is_paused
from searchae.storage import masked_url
from searchae.study.attributes import (
    OPEN_UNTIL,
    OUTCOME,
    REFUSED,
    REPEATED,
    RUNTIME,
    TRAINING,
    WARM_START,
    WITHDRAWN,
)
from searchae.study.budget import TrialCounts
from searchae.study.coordination import Coordinator
from searchae.study.early_end import EarlyEnd, early_end
from searchae.study.epoch_history import training_seconds
from searchae.study.foreign_trials import INVALID, outcome_of
from searchae.study.front import front_of
from searchae.study.results import is_result
from searchae.study.snapshot import StudySnapshot
from searchae.study.stored_study import StoredStudy
from searchae.study.summary_warnings import summary_warnings
from searchae.study.time_to_go import RunningTrials, time_to_go_s
from searchae.study.work_time import wall_seconds
from searchae.study.worker_registry import WorkerInfo


@dataclass(frozen=True)
class TrialRow:
    """One trial as tables show it.

    Examples:
        >>> best = searchae.open("quickstart").best
        >>> best.state, sorted(best.params)[:2]
        ('complete', ['activation', 'learning_rate'])

    Attributes:
        number: Its number in the study.
        state: ``complete``, ``pruned``, ``failed``, ``running``, ``waiting`` or ``paused``.
        psnr_db: Validation PSNR in dB after its last epoch, of a trial that ended badly after the
            last one that was measured; None before the first.
        params: Searched parameters, in the study file's order.
        epochs: Number of epochs trained.
        outcome: How it ended badly (``diverged``, ``dead``, ``out-of-memory``, ``lost``,
            ``bug``), ``invalid`` for a trial of another program that does not fit, or empty.
        seconds: Time its epochs took, added up over all workers; the time from start to end if its
            history was not stored; None before the end.
        imported: Whether a warm start copied it from another study.
        worker: The name of the worker that trains it or trained it last.
        seed: The seed of a listed training; None in a search, whose trials have the study's.
        is_measured: Whether it is a listed training that is measured on the test split.
        values: Objective -> value, of a complete trial of a study with several objectives.
    """

    number: int
    state: str
    psnr_db: float | None
    params: dict[str, Any]
    epochs: float
    outcome: str
    seconds: float | None
    imported: bool
    worker: str = ""
    seed: int | None = None
    is_measured: bool = False
    values: dict[str, float] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What the user calls it: ``training`` in a list of trainings, else ``trial``."""
        return "trial" if self.seed is None else "training"

    @property
    def has_result(self) -> bool:
        """Whether the trial has a result of its own; see ``results.is_result``."""
        return is_result(
            self.psnr_db,
            complete=self.state == "complete",
            ended_badly=bool(self.outcome),
            imported=self.imported,
        )


@dataclass(frozen=True)
class Summary:
    """A study as tables and ``--json`` show it. Imported trials are left out of all numbers.

    Attributes:
        study: Its name.
        storage: The URL of its database, without the password.
        counts: The budget, and trials by state.
        best: The trial with the best PSNR of those with a result; None without one.
        outcomes: How a trial ended badly -> number of such trials.
        baseline_db: PSNR in dB of the mean training image on the validation split.
        epochs_run: Epochs trained in all trials, each counted once.
        epochs_repeated: Epochs among them that were trained again, since no checkpoint held them.
        epochs_full: Epochs that the finished trials would have trained without pruning.
        epochs_saved: Epochs that the finished trials did not train.
        wall_s: Seconds in which at least one trial was worked on; see ``wall_seconds``.
        workers: The workers alive.
        warnings: Warnings for the user, a line each.
        rows: The trials, in order of number.
        refused: How many nets were refused by ``search.max_parameters`` before they were trained;
            None without that limit.
        front: With several objectives, the trials that none dominates; see ``front_of``.
        trainings_of: The study whose trainings it lists, for which nothing is the best; empty if
            it is a search.
        to_go_s: Estimated seconds until the budget is spent; None if there is nothing to estimate
            it from.
        seconds_left: Seconds until the time limit, negative after it; None without one.
        early_end: How the search ended by itself, before its budget was spent; None if it did not.
        stop_asked: Who asked for a stop, which ``searchae tune`` ends; empty if nobody did.
        quarantined: Why workers left for good, a line each.
        untried: Searched parameter -> its choices that no trial has had; without those of which
            all were tried.
    """

    study: str
    storage: str
    counts: TrialCounts
    best: TrialRow | None
    outcomes: dict[str, int]
    baseline_db: float
    epochs_run: float
    epochs_repeated: int
    epochs_full: int
    epochs_saved: float
    wall_s: float
    workers: tuple[WorkerInfo, ...]
    warnings: tuple[str, ...]
    rows: tuple[TrialRow, ...] = ()
    seconds_left: float | None = None
    to_go_s: float | None = None
    refused: int | None = None
    front: tuple[TrialRow, ...] = ()
    trainings_of: str = ""
    early_end: EarlyEnd | None = None
    stop_asked: str = ""
    quarantined: tuple[str, ...] = ()
    untried: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def gain_db(self) -> float | None:
        """The best trial's PSNR minus the first trial's, in dB; None unless both have a result."""
        return None if self._gained is None else self._gained[0] - self._gained[1]

    @property
    def shown_gain_db(self) -> float | None:
        """The gain between the two PSNRs as they are shown, with two decimals; see ``gain_db``."""
        return None if self._gained is None else shown_difference(*self._gained)

    @property
    def _gained(self) -> tuple[float, float] | None:
        """The PSNR in dB of the best trial and of the first one; None unless both have a result."""
        first = self._first
        if self.best is None or self.best.psnr_db is None or self.counts.finished < 2:
            return None
        if first is None or not first.has_result or first.psnr_db is None:
            return None
        return self.best.psnr_db, first.psnr_db

    @property
    def noun(self) -> str:
        """What the user calls one of its trials: ``training`` in a list of trainings."""
        return "training" if self.trainings_of else "trial"

    @property
    def first_number(self) -> int | None:
        """The number of the first trial, which the gain is over; None without one."""
        return None if self._first is None else self._first.number

    @property
    def _first(self) -> TrialRow | None:
        return next((row for row in self.rows if not row.imported), None)

    def document(self) -> dict[str, Any]:
        """Returns the summary as ``--json`` prints it."""
        c, best = self.counts, self.best
        return {
            "study": self.study,
            **({"trainings_of": self.trainings_of} if self.trainings_of else {}),
            "storage": self.storage,
            "budget": c.budget,
            "trials": {
                "complete": c.complete,
                "pruned": c.pruned,
                "failed": c.failed,
                "running": c.running,
                "waiting": c.waiting,
                **({"paused": c.paused} if c.paused else {}),
            },
            "best": best
            and {"number": best.number, "psnr_db": best.psnr_db, "params": best.params},
            **self.front_document(),
            "baseline_db": self.baseline_db,
            "gain_db": self.gain_db,
            "outcomes": self.outcomes,
            **({"untried": self.untried} if self.untried else {}),
            **({} if self.refused is None else {"refused": self.refused}),
            "epochs": {
                "run": self.epochs_run,
                "full": self.epochs_full,
                "saved": self.epochs_saved,
                "repeated": self.epochs_repeated,
            },
            **({"early_end": asdict(self.early_end)} if self.early_end else {}),
            **({"stop_asked": self.stop_asked} if self.stop_asked else {}),
            "wall_s": round(self.wall_s, 3),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            "warnings": list(self.warnings),
        }

    def front_document(self) -> dict[str, Any]:
        """Returns the front as ``--json`` prints it; empty without one."""
        trials = [{"number": r.number, "values": r.values, "params": r.params} for r in self.front]
        return {"front": trials} if trials else {}


def trial_row(spec: StudySpec, trial: FrozenTrial) -> TrialRow:
    """Returns a row for one of Optuna's trials.

    Args:
        spec: The spec of the trial's study.
        trial: The trial.
    """
    reports, objectives = trial.intermediate_values, spec.search.objectives
    outcome = outcome_of(spec, trial)
    # The values of a trial that ended badly say nothing but this.
    values = trial.values if trial.values and not outcome else []
    psnr_db = values[0] if values else reports[max(reports)] if reports else None
    state = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
    if is_paused(trial):
        state = "paused"
    return TrialRow(
        number=trial.number,
        state=state,
        psnr_db=psnr_db,
        params=dict(trial.params) if outcome == INVALID else readable_params(spec, trial.params),
        # Another program may have reported any step.
        epochs=min(spec.search.epochs_at(max(reports, default=0)), _full_epochs(spec, trial)),
        outcome=outcome,
        seconds=_seconds(trial),
        imported=WARM_START in trial.user_attrs,
        worker=trial.user_attrs.get(RUNTIME, {}).get("worker", ""),
        seed=trial.user_attrs.get(TRAINING, {}).get("seed"),
        is_measured=trial.user_attrs.get(TRAINING, {}).get("is_tested", False),
        values=dict(zip(objectives, values, strict=True)) if len(objectives) > 1 and values else {},
    )


def _full_epochs(spec: StudySpec, trial: FrozenTrial) -> int:
    """Returns the epochs of a trial that neither the pruner nor a plateau ends."""
    listed = trial.user_attrs.get(TRAINING)
    return spec.epochs if listed is None else int(listed["train"]["epochs"])


def _seconds(trial: FrozenTrial) -> float | None:
    if trial.duration is None:
        return None
    trained_s = training_seconds(trial.user_attrs)
    return trial.duration.total_seconds() if trained_s is None else trained_s


def summarize(stored: StoredStudy, coordinator: Coordinator) -> Summary:
    """Reads and summarizes a study.

    Args:
        stored: The study.
        coordinator: The same study's coordinator.
    """
    return summarize_snapshot(stored, coordinator.snapshot())


def summarize_snapshot(stored: StoredStudy, snapshot: StudySnapshot) -> Summary:
    """Summarizes what was read of a study.

    Args:
        stored: The study.
        snapshot: What the study's coordinator has read.
    """
    listed = [t for t in snapshot.trials if t.user_attrs.get(OUTCOME) != WITHDRAWN]
    withdrawn = len(snapshot.trials) - len(listed)  # no training has failed
    counts = replace(snapshot.counts, failed=snapshot.counts.failed - withdrawn)
    own_trials = [t for t in listed if WARM_START not in t.user_attrs]
    own = [trial_row(stored.spec, t) for t in own_trials]
    finished = [r for r in own if r.state in ("complete", "pruned") and r.outcome != INVALID]
    # One without an epoch that has a result was added by another program: nothing of it is saved.
    numbers = {r.number for r in finished if r.epochs or r.outcome}
    full = sum(_full_epochs(stored.spec, t) for t in own_trials if t.number in numbers)
    epochs_run = sum(r.epochs for r in own)
    return Summary(
        study=stored.name,
        storage=masked_url(stored.storage.engine.url),
        counts=counts,
        best=None if snapshot.trainings_of else best_of(own),
        outcomes=dict(Counter(r.outcome for r in own if r.outcome)),
        baseline_db=stored.baseline_db,
        epochs_run=epochs_run,
        epochs_repeated=sum(t.user_attrs.get(REPEATED, 0) for t in own_trials),
        epochs_full=full,
        epochs_saved=full - sum(r.epochs for r in finished),
        wall_s=wall_seconds(
            own_trials,
            now=datetime.now(),
            worked_for_s=max((w.age_s for w in snapshot.workers), default=None),
        ),
        workers=snapshot.workers,
        warnings=tuple(
            summary_warnings(stored.spec, snapshot, own, best_of(own), stored.baseline_db)
        ),
        seconds_left=snapshot.seconds_left,
        # A process that keeps a list of trainings open may add more to it at any time.
        to_go_s=None
        if snapshot.attributes.get(OPEN_UNTIL)
        else time_to_go_s(
            counts,
            [(row.epochs, row.seconds) for row in finished if row.seconds is not None],
            RunningTrials.of(own_trials, stored.spec),
            workers=len(snapshot.workers),
            expected_epochs=float(stored.spec.epochs)
            if snapshot.trainings_of
            else expected_epochs(stored.spec),
        ),
        rows=tuple(own),
        refused=None
        if stored.spec.search.max_parameters is None
        else sum(t.user_attrs.get(REFUSED, 0) for t in own_trials),
        front=front_of(own),
        trainings_of=snapshot.trainings_of,
        early_end=early_end(snapshot.attributes, counts, epochs_run),
        stop_asked=snapshot.stop_asked,
        quarantined=snapshot.quarantined,
        untried={}
        if snapshot.trainings_of
        else untried_choices(stored.spec, [r.params for r in own if r.outcome != INVALID]),
    )


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Returns the trial with the best PSNR, the first of equals; None without a result."""
    with_result = [r for r in rows if r.has_result]
    return max(with_result, key=lambda r: (r.psnr_db, -r.number), default=None)
