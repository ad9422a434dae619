"""Study -> frozen findings: all that the report, its figures and its tables are made from."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from searchae.config import StudySpec
from searchae.formatting import format_count
from searchae.study import (
    ERROR,
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
    read_picture,
    summarize,
    trial_row,
)

MOST_PICTURES = 5
FEWEST_FOR_IMPORTANCES, TOP_SHARE, FEWEST_TOP = 10, 0.1, 12


@dataclass(frozen=True)
class Run:
    """One trial, with its epochs.

    Attributes:
        row: What the tables say of it.
        reports: Validation PSNR in dB by epoch, the finite ones, in order.
        history: Columns of ``history.COLUMNS``, one value an epoch; empty if none was kept.
        runtime: Where it ran, as its worker noted it.
        error: How it ended badly, if it did.
        started: Local time; None before.
        ended: The same.
    """

    row: TrialRow
    reports: dict[int, float]
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
        """Its PSNR in dB so far; NaN before the first epoch."""
        return math.nan if self.row.psnr_db is None else self.row.psnr_db


@dataclass(frozen=True)
class Importances:
    """How much each searched parameter sets the best trials apart from the others.

    Attributes:
        shares: Parameter -> share, the largest first; they add up to 1. Empty if not known.
        top: How many of the best trials were set against all.
        trials: How many trials had ended.
        missing: Why there are none, if so.
    """

    shares: dict[str, float]
    top: int = 0
    trials: int = 0
    missing: str = ""


@dataclass(frozen=True)
class Findings:
    """A study as it stood at one moment.

    Attributes:
        summary: Its figures in short.
        spec: What it searched.
        runs: Its own trials in order, those of a warm start left out.
        best: The good ones, the best first.
        importances: Of the searched parameters.
        splits: ``data.describe`` of its images; empty where an older searchae made the study.
        data_hash: Of its images.
        versions: That it was made with.
        pictures: Number -> PNG of originals and reconstructions, for the best trials that have one.
        taken_at: When, in local time with its zone.
        comparison: What ``searchae compare`` found last, as its JSON has it; None without.
    """

    summary: Summary
    spec: StudySpec
    runs: tuple[Run, ...]
    best: tuple[Run, ...]
    importances: Importances
    splits: dict[str, Any]
    data_hash: str
    versions: dict[str, str]
    pictures: dict[int, bytes]
    taken_at: datetime
    comparison: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """The figures' data in short, as ``--json`` prints it."""
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


def collect_findings(stored: StoredStudy, *, artifacts: Path | None) -> Findings:
    """Reads a study as it stands now.

    Args:
        stored: The study.
        artifacts: The folder that its workers shared; pictures come from there. Without it
            pictures and importances, which take long, are left out.
    """
    attributes = stored.study.user_attrs
    own = _own(stored)
    runs = tuple(run_of(stored.spec, t) for t in own)
    ranked = sorted((r for r in runs if r.is_good), key=lambda r: (-r.psnr_db, r.row.number))
    return Findings(
        summary=summarize(stored, Coordinator(stored)),
        spec=stored.spec,
        runs=runs,
        best=tuple(ranked),
        importances=importances(own) if artifacts else Importances({}, missing="left out"),
        splits=attributes.get(SPLITS, {}),
        data_hash=stored.data_hash,
        versions=attributes.get(VERSIONS, {}),
        pictures=_pictures(gallery_folder(artifacts, stored.name), ranked) if artifacts else {},
        taken_at=datetime.now().astimezone(),
        comparison=_comparison(comparison_file(artifacts, stored.name), stored)
        if artifacts
        else None,
    )


def comparison_file(artifacts: Path, study: str) -> Path:
    """Where ``searchae compare`` leaves what it found."""
    return artifacts / study / "compare" / "comparison.json"


def _comparison(file: Path, stored: StoredStudy) -> dict[str, Any] | None:
    """One of other images, or of a study of that name that is gone, is none."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if found.get("data_hash") == stored.data_hash else None


def runs_of(stored: StoredStudy) -> tuple[Run, ...]:
    """A study's own trials as they stand now, in order."""
    return tuple(run_of(stored.spec, t) for t in _own(stored))


def _own(stored: StoredStudy) -> list[FrozenTrial]:
    trials = stored.study.get_trials(deepcopy=False)
    return [t for t in trials if WARM_START not in t.user_attrs]


def best_so_far(runs: Sequence[Run]) -> list[float | None]:
    """The best PSNR in dB after each trial, by their numbers; None before the first good one."""
    good = (run.psnr_db if run.is_good else -math.inf for run in runs)
    return [None if best == -math.inf else best for best in accumulate(good, max)]


def importances(trials: Sequence[FrozenTrial]) -> Importances:
    """What sets the best trials apart, by PED-ANOVA, which knows conditional parameters.

    The best tenth is set against all trials, but no fewer than twelve or half of them: where a
    handful lie in a range is chance. Pruned trials are among them, with the PSNR that they had
    come to: of those trained to their end alone, a choice that the pruner always stopped would
    seem not to matter.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    ended = [c for c in (_as_complete(t) for t in trials if t.state in states) if c.values]
    count = len(ended)
    if count < FEWEST_FOR_IMPORTANCES:
        return Importances(
            {},
            trials=count,
            missing=f"{format_count(count, 'trial')} ended; importances take at least "
            f"{FEWEST_FOR_IMPORTANCES}",
        )
    if len({t.values[0] for t in ended}) == 1:
        return Importances({}, trials=count, missing="all trials came to the same PSNR")
    if not any(t.params for t in ended):
        return Importances({}, trials=count, missing="nothing was searched")
    top = _top([t.values[0] for t in ended])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shares = get_param_importances(
            _in_memory(ended),
            evaluator=PedAnovaImportanceEvaluator(target_quantile=(top - 0.5) / count),
        )
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return Importances({name: float(share) for name, share in ordered}, top=top, trials=count)


def _top(values: Sequence[float]) -> int:
    """How many trials are the best; fewer than all, since they do not all have one value."""
    count = len(values)
    cut = max(math.ceil(TOP_SHARE * count), min(FEWEST_TOP, count // 2))
    lowest = sorted(values, reverse=True)[cut - 1]
    top = sum(v >= lowest for v in values)
    # Those that ended badly share one value, and may be more than half.
    return top if top < count else sum(v > lowest for v in values)


def _as_complete(trial: FrozenTrial) -> FrozenTrial:
    """The trial as one that Optuna's importances look at; without a value if it told none."""
    ended = copy.copy(trial)
    ended.state, ended.value = TrialState.COMPLETE, _came_to(trial)
    return ended


def _came_to(trial: FrozenTrial) -> float | None:
    """The PSNR in dB that a trial ended with; None if it told no number."""
    if trial.values:
        return float(trial.values[0])
    told = [v for _, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)]
    return told[-1] if told else None


def _in_memory(trials: Sequence[FrozenTrial]) -> optuna.Study:
    """A study of just these trials: no other state is looked at, and no database."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(before)
    study.add_trials(trials)
    return study


def run_of(spec: StudySpec, trial: FrozenTrial) -> Run:
    """One of Optuna's trials, with its epochs."""
    attributes: Mapping[str, Any] = trial.user_attrs
    reports = sorted(trial.intermediate_values.items())
    runtime = attributes.get(RUNTIME, {})
    return Run(
        row=trial_row(spec, trial),
        reports={epoch: value for epoch, value in reports if math.isfinite(value)},
        history=history_columns(attributes),
        runtime=runtime if isinstance(runtime, dict) else {},
        error=str(attributes.get(ERROR, "")) if OUTCOME in attributes else "",
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def _pictures(folder: Path, ranked: Sequence[Run]) -> dict[int, bytes]:
    found = {
        r.row.number: read_picture(folder, r.row.number, psnr_db=r.psnr_db)
        for r in ranked[:MOST_PICTURES]
    }
    return {number: png for number, png in found.items() if png is not None}
