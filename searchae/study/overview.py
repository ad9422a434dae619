"""All studies of a database in a few lines, without reading their trials."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.errors import SearchaeError
from searchae.storage import ResilientStorage, trial_values, trials
from searchae.study.attributes import TRAININGS_OF
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, load_study, study_names


@dataclass(frozen=True)
class StudyOverview:
    """How far a study is.

    Attributes:
        name: Its name.
        finished: Trials that count towards the budget.
        budget: The budget.
        running: Trials that run.
        best_db: The best PSNR of a complete trial in dB; None if none is above the baseline.
        trainings_of: The study whose trainings it lists; empty for a search.
        fault: Why it cannot be read; empty if it can.
    """

    name: str
    finished: int = 0
    budget: int = 0
    running: int = 0
    best_db: float | None = None
    trainings_of: str = ""
    fault: str = ""


def study_overviews(storage: ResilientStorage) -> list[StudyOverview]:
    """Returns an overview of each study in a database, by name."""
    return [_overview(storage, name) for name in study_names(storage)]


def _overview(storage: ResilientStorage, name: str) -> StudyOverview:
    try:
        stored = load_study(storage, name)
        counts = Coordinator(stored).counts()
        best_db = _best_db(stored)
    except SearchaeError as e:  # one study that cannot be read hides no other
        return StudyOverview(name, fault=str(e))
    return StudyOverview(
        name,
        finished=counts.finished,
        budget=counts.budget,
        running=counts.running,
        best_db=best_db,
        trainings_of=stored.study.user_attrs.get(TRAININGS_OF, ""),
    )


def _best_db(stored: StoredStudy) -> float | None:
    query = (
        sa.select(sa.func.max(trial_values.c.value))
        .join(trials, trials.c.trial_id == trial_values.c.trial_id)
        .where(
            trials.c.study_id == stored.id,
            trials.c.state == TrialState.COMPLETE,
            trial_values.c.objective == 0,
        )
    )
    with stored.storage.engine.connect() as connection:
        found = connection.scalar(query)
    # A trial that ended badly has at most the baseline's PSNR.
    return float(found) if found is not None and found > stored.baseline_db else None
