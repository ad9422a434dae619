"""Study -> frozen summary: what every table, page and JSON object is made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from searchae.config import StudySpec, readable_params
from searchae.formatting import format_count
from searchae.search import why_nothing_is_pruned
from searchae.storage import masked_url
from searchae.study.attributes import OUTCOME, RUNTIME, WARM_START
from searchae.study.claims import TrialCounts
from searchae.study.coordination import Coordinator, WorkerInfo
from searchae.study.history import history_columns
from searchae.study.stored import StoredStudy


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        number: Its number in the study.
        state: ``complete``, ``pruned``, ``failed``, ``running`` or ``waiting``.
        psnr_db: Validation PSNR after its last epoch, in dB; None before the first.
        params: Searched parameters, in the study file's order.
        epochs: Epochs run.
        outcome: Why it ended badly (``diverged``, ``dead``, ``out-of-memory``, ``lost``,
            ``bug``), or empty.
        seconds: That its epochs took, on whichever workers; from its start to its end where they
            were not kept; None before the end.
        imported: Taken over from another study by ``--warm-start``.
        worker: Who trains it, or did last.
    """

    number: int
    state: str
    psnr_db: float | None
    params: dict[str, Any]
    epochs: int
    outcome: str
    seconds: float | None
    imported: bool
    worker: str = ""


@dataclass(frozen=True)
class Summary:
    """One study.

    Attributes:
        study: Its name.
        storage: Its database, without the password.
        counts: Trials by state.
        best: The best trial that trained to its end and did not end badly.
        outcomes: How many trials ended badly, by how.
        baseline_db: PSNR of the mean training image on the validation split, in dB.
        epochs_run: Epochs trained, by all trials.
        epochs_full: Epochs that the finished trials would have run without any pruning.
        epochs_saved: Epochs that the finished trials did not have to run.
        wall_s: Seconds from the first trial's start to the last one's end.
        workers: Those alive.
        warnings: What the user should know, a line each.
        rows: Its own trials, in order; those of a warm start left out.
        to_go_s: Seconds that the rest of the budget will take, by the trials so far and the workers
            alive; None where that cannot be told.
        seconds_left: Until ``--max-hours`` is over; negative after; None without a limit.
    """

    study: str
    storage: str
    counts: TrialCounts
    best: TrialRow | None
    outcomes: dict[str, int]
    baseline_db: float
    epochs_run: int
    epochs_full: int
    epochs_saved: int
    wall_s: float
    workers: tuple[WorkerInfo, ...]
    warnings: tuple[str, ...]
    rows: tuple[TrialRow, ...] = ()
    seconds_left: float | None = None
    to_go_s: float | None = None

    def document(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        c, best = self.counts, self.best
        return {
            "study": self.study,
            "storage": self.storage,
            "budget": c.budget,
            "trials": {
                "complete": c.complete,
                "pruned": c.pruned,
                "failed": c.failed,
                "running": c.running,
                "waiting": c.waiting,
            },
            "best": best
            and {"number": best.number, "psnr_db": best.psnr_db, "params": best.params},
            "baseline_db": self.baseline_db,
            "outcomes": self.outcomes,
            "epochs": {
                "run": self.epochs_run,
                "full": self.epochs_full,
                "saved": self.epochs_saved,
            },
            "wall_s": round(self.wall_s, 3),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            "warnings": list(self.warnings),
        }


def trial_row(spec: StudySpec, trial: FrozenTrial) -> TrialRow:
    """One of Optuna's trials, in searchae's words."""
    values = trial.intermediate_values
    value = trial.values[0] if trial.values else None
    if value is None and values:
        value = values[max(values)]
    state = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
    return TrialRow(
        number=trial.number,
        state=state,
        psnr_db=value,
        params=readable_params(spec, trial.params),
        epochs=max(values, default=0),
        outcome=str(trial.user_attrs.get(OUTCOME, "")),
        seconds=_seconds(trial),
        imported=WARM_START in trial.user_attrs,
        worker=trial.user_attrs.get(RUNTIME, {}).get("worker", ""),
    )


def _seconds(trial: FrozenTrial) -> float | None:
    if trial.duration is None:
        return None
    epochs = history_columns(trial.user_attrs)
    return sum(epochs["seconds"]) if epochs else trial.duration.total_seconds()


def summarize(stored: StoredStudy, ledger: Coordinator) -> Summary:
    """Sums a study up as it stands now."""
    trials = stored.study.get_trials(deepcopy=False)
    rows = [trial_row(stored.spec, t) for t in trials]
    own = [r for r in rows if not r.imported]
    finished = [r for r in own if r.state in ("complete", "pruned")]
    full = stored.spec.epochs * len(finished)
    counts = ledger.counts()
    workers = tuple(ledger.workers())
    return Summary(
        study=stored.name,
        storage=masked_url(stored.storage.engine.url),
        counts=counts,
        best=best_of(own),
        outcomes=dict(Counter(r.outcome for r in own if r.outcome)),
        baseline_db=stored.baseline_db,
        epochs_run=sum(r.epochs for r in own),
        epochs_full=full,
        epochs_saved=full - sum(r.epochs for r in finished),
        wall_s=_wall_s([t for t in trials if WARM_START not in t.user_attrs]),
        workers=workers,
        warnings=(
            *_warnings(stored.spec, counts, own, workers=len(workers)),
            *_sick(ledger),
        ),
        seconds_left=ledger.seconds_left(),
        to_go_s=_to_go_s(
            counts,
            finished,
            workers=len(workers),
            running_epochs=sum(r.epochs for r in own if r.state == "running"),
        ),
        rows=tuple(own),
    )


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """The completed trial with the highest PSNR, the first among equals."""
    good = [r for r in rows if r.state == "complete" and not r.outcome and r.psnr_db is not None]
    return max(good, key=lambda r: (r.psnr_db, -r.number), default=None)


def _wall_s(trials: Sequence[FrozenTrial]) -> float:
    starts = [t.datetime_start for t in trials if t.datetime_start]
    if not starts:
        return 0.0
    open_ended = any(t.state == TrialState.RUNNING for t in trials)
    ends = [t.datetime_complete for t in trials if t.datetime_complete]
    end = datetime.now() if open_ended or not ends else max(ends)
    return (end - min(starts)).total_seconds()


def _to_go_s(
    counts: TrialCounts, finished: Sequence[TrialRow], *, workers: int, running_epochs: int = 0
) -> float | None:
    told = [row for row in finished if row.seconds is not None]
    took_s, epochs = sum(row.seconds or 0.0 for row in told), sum(row.epochs for row in told)
    left = counts.budget - counts.finished
    if left <= 0 or not told or not workers:
        return None
    # The first to end are those that were pruned: what the others have run so far counts too, as
    # in a mean of durations of some of which only the beginning is known.
    each_s = took_s * (1 + running_epochs / max(epochs, 1)) / len(told)
    # Half of what runs is done already, on average; the last wave leaves workers idle.
    waves = -(-(left - counts.running / 2) // workers)
    return each_s * max(waves, 0.5)


def _warnings(
    spec: StudySpec, counts: TrialCounts, rows: Sequence[TrialRow], *, workers: int
) -> list[str]:
    found = []
    if counts.complete >= 50 and counts.pruned == 0:
        found.append(
            f"{counts.complete} trials ended and none was pruned: {why_nothing_is_pruned(spec)}"
        )
    bad = sum(bool(r.outcome) for r in rows)
    if counts.finished >= 10 and bad * 2 > counts.finished:
        found.append(f"{bad} of {counts.finished} trials ended badly: the ranges may reach too far")
    if counts.waiting and not counts.running and not workers:
        found.append(
            f"{format_count(counts.waiting, 'trial')} put back, and no worker is alive: the same "
            "`searchae tune` command as before goes on"
        )
    if counts.finished >= counts.budget and best_of(rows) is None:
        found.append("no trial trained to its end: raise --trials or train fewer epochs")
    return found


def _sick(ledger: Coordinator) -> list[str]:
    return [f"a worker left after three failures in a row: {r}" for r in ledger.quarantined()]
