"""A snapshot of a study with everything that the report, its figures and its tables show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from optuna.trial import FrozenTrial

from searchae.config import StudySpec
from searchae.files import ArtifactPath
from searchae.report.importances import Importances, parameter_importances
from searchae.report.last_comparison import read_comparison
from searchae.study import (
    ERROR,
    INVALID,
    OUTCOME,
    RUNTIME,
    SPLITS,
    VERSIONS,
    WARM_START,
    Coordinator,
    StoredStudy,
    Summary,
    TrialRow,
    gallery_folder,
    history_columns,
    outcome_of,
    picture_owner,
    read_picture,
    summarize_snapshot,
    trial_row,
)

MAX_PICTURES = 5


@dataclass(frozen=True)
class TrialRun:
    """One trial with its values by epoch.

    Attributes:
        row: Number, state, parameters and result.
        reports: Validation PSNR in dB by the epochs trained; finite values only, in order.
        history: The columns ``HISTORY_COLUMNS``, with one value per epoch from the first on;
            empty if none was stored.
        runtime: Host, device and versions, as the worker stored them.
        error: The error message, if the trial ended badly.
        started: Start in local time; None before it.
        ended: End in local time; None before it.
    """

    row: TrialRow
    reports: dict[float, float]
    history: dict[str, tuple[float, ...]]
    runtime: dict[str, Any]
    error: str
    started: datetime | None
    ended: datetime | None

    @property
    def is_good(self) -> bool:
        """Whether it has a result of its own; see ``study.has_result``."""
        return self.row.has_result

    @property
    def psnr_db(self) -> float:
        """Its latest PSNR in dB; NaN before the first epoch has ended."""
        return math.nan if self.row.psnr_db is None else self.row.psnr_db

    def history_by_epoch(self, column: str) -> dict[int, float]:
        """Returns a column of the history as value by epoch."""
        return dict(enumerate(self.history[column], start=1))


@dataclass(frozen=True)
class Findings:
    """A snapshot of a study.

    Attributes:
        summary: The study's summary.
        spec: The study's specification.
        runs: The study's own trials by number, without those of a warm start.
        best: The trials with a result, the best first.
        importances: Importances of the searched parameters.
        splits: Sizes of the data splits and of an image; empty if an older searchae made the
            study.
        data_hash: SHA-256 of all splits.
        versions: Versions of the packages that made the study.
        pictures: PNG of originals and reconstructions by trial number, for the best trials that
            have one.
        taken_at: Time of the snapshot, local time with its zone.
        comparison: The last result of ``searchae compare``, as JSON; None if there is none.
    """

    summary: Summary
    spec: StudySpec
    runs: tuple[TrialRun, ...]
    best: tuple[TrialRun, ...]
    importances: Importances
    splits: dict[str, Any]
    data_hash: str
    versions: dict[str, str]
    pictures: dict[int, bytes]
    taken_at: datetime
    comparison: dict[str, Any] | None = None

    @property
    def front(self) -> tuple[TrialRun, ...]:
        """With several objectives, the trials that none dominates, the highest PSNR first."""
        runs = {r.row.number: r for r in self.runs}
        return tuple(runs[row.number] for row in self.summary.front if row.number in runs)

    def document(self) -> dict[str, Any]:
        """Returns the figures' data as a JSON document, as ``searchae report --json`` prints it."""
        return {
            **self.summary.document(),
            "history": [
                {
                    "number": r.row.number,
                    "state": r.row.state,
                    "outcome": r.row.outcome,
                    "psnr_db": r.row.psnr_db,
                    "best_db": so_far,
                    "epochs": r.row.epochs,
                    "params": r.row.params,
                }
                for r, so_far in zip(self.runs, best_so_far(self.runs), strict=True)
            ],
            "importances": self.importances.shares,
            "importances_missing": self.importances.missing,
            "curves": {str(r.row.number): list(r.reports.values()) for r in self.best[:5]},
            "losses": {str(r.row.number): r.history for r in self.best[:5] if r.history},
            "comparisons": self.comparison and self.comparison["comparisons"],
        }


def collect_findings(stored: StoredStudy, *, artifacts: ArtifactPath | None) -> Findings:
    """Takes a snapshot of a study.

    Args:
        stored: The study.
        artifacts: The workers' artifact folder, with the pictures and the last comparison. If
            None, these and the importances (which take long to compute) are left out.
    """
    attributes = stored.study.user_attrs
    snapshot = Coordinator(stored).snapshot()
    summary, own = summarize_snapshot(stored, snapshot), _own(snapshot.trials)
    runs = tuple(
        trial_run(stored.spec, trial, row) for trial, row in zip(own, summary.rows, strict=True)
    )
    ranked = sorted((r for r in runs if r.is_good), key=lambda r: (-r.psnr_db, r.row.number))
    return Findings(
        summary=summary,
        spec=stored.spec,
        runs=runs,
        best=tuple(ranked),
        importances=parameter_importances([t for t in own if outcome_of(stored.spec, t) != INVALID])
        if artifacts
        else Importances({}, missing="left out"),
        splits=attributes.get(SPLITS, {}),
        data_hash=stored.data_hash,
        versions=attributes.get(VERSIONS, {}),
        pictures=_pictures(artifacts, stored, ranked) if artifacts else {},
        taken_at=datetime.now().astimezone(),
        comparison=read_comparison(artifacts, stored) if artifacts else None,
    )


def read_trial_runs(stored: StoredStudy) -> tuple[TrialRun, ...]:
    """Reads a study's own trials, without those of a warm start, by number."""
    trials = stored.study.get_trials(deepcopy=False)
    return tuple(trial_run(stored.spec, t) for t in _own(trials))


def _own(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if WARM_START not in t.user_attrs]


def best_so_far(runs: Sequence[TrialRun]) -> list[float | None]:
    """Returns the best PSNR in dB up to each trial; None before the first trial with a result."""
    good = (run.psnr_db if run.is_good else -math.inf for run in runs)
    return [None if best == -math.inf else best for best in accumulate(good, max)]


def trial_run(spec: StudySpec, trial: FrozenTrial, row: TrialRow | None = None) -> TrialRun:
    """Converts one of Optuna's trials.

    Args:
        spec: The study's specification.
        trial: The trial.
        row: The trial's row, if it has been made already.
    """
    attributes: Mapping[str, Any] = trial.user_attrs
    reports = sorted(trial.intermediate_values.items())
    epochs_at = spec.search.epochs_at
    runtime = attributes.get(RUNTIME, {})
    return TrialRun(
        row=row or trial_row(spec, trial),
        reports={epochs_at(step): value for step, value in reports if math.isfinite(value)},
        history=history_columns(attributes),
        runtime=runtime if isinstance(runtime, dict) else {},
        error=str(attributes.get(ERROR, "")) if OUTCOME in attributes else "",
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def _pictures(
    artifacts: ArtifactPath, stored: StoredStudy, ranked: Sequence[TrialRun]
) -> dict[int, bytes]:
    folder, owner = gallery_folder(artifacts, stored.folder), picture_owner(stored)
    found = {
        r.row.number: read_picture(folder, r.row.number, psnr_db=r.psnr_db, owner=owner)
        for r in ranked[:MAX_PICTURES]
    }
    return {number: png for number, png in found.items() if png is not None}
