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
        id: Its id in the database; 0 if it cannot be read.
    """

    name: str
    finished: int = 0
    budget: int = 0
    running: int = 0
    best_db: float | None = None
    trainings_of: str = ""
    fault: str = ""
    id: int = 0

    @property
    def text(self) -> str:
        """All of that in a line."""
        if self.fault:
            return f"cannot be read: {self.fault}"
        running = f", {self.running:,} running" if self.running else ""
        done = f"{self.finished:,} of {self.budget:,}"
        if self.trainings_of:
            return f"{done} trainings of {self.trainings_of}{running}"
        best = "" if self.best_db is None else f", best {self.best_db:.2f} dB"
        return f"{done} trials{running}{best}"


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
    except KeyError:
        return StudyOverview(name, fault="it has just been deleted")
    return StudyOverview(
        name,
        finished=counts.finished,
        budget=counts.budget,
        running=counts.running,
        best_db=best_db,
        trainings_of=stored.study.user_attrs.get(TRAININGS_OF, ""),
        id=stored.id,
    )


def ended_numbers(stored: StoredStudy) -> set[int]:
    """Returns the numbers of a study's trials that have ended."""
    ended = [state for state in TrialState if state.is_finished()]
    query = sa.select(trials.c.number).where(
        trials.c.study_id == stored.id, trials.c.state.in_(ended)
    )

    def read() -> set[int]:
        with stored.storage.engine.connect() as connection:
            return set(connection.scalars(query))

    found: set[int] = stored.storage.retried(read)
    return found


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
