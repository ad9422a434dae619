"""All studies of a database in a few lines, without reading their trials."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.errors import SearchaeError
from searchae.files import ArtifactPath, RemotePath
from searchae.storage import ResilientStorage, trial_values, trials
from searchae.study.artifact_folder import size_of
from searchae.study.attributes import CREATED, TRAININGS_OF
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, load_study, study_names

log = logging.getLogger(__name__)


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
        complete: Trials that count towards the budget and trained to the end.
        pruned: Those that the pruner stopped.
        created: When it was made, in UTC (ISO 8601); of a study of an earlier version, when its
            first trial began. Empty if that is not known.
        last_trial: When a trial last began or ended; empty without trials.
        folder: Its folder below the artifact folder.
        artifact_bytes: The bytes in it; None if it is not there, or was not looked at.
    """

    name: str
    finished: int = 0
    budget: int = 0
    running: int = 0
    best_db: float | None = None
    trainings_of: str = ""
    fault: str = ""
    id: int = 0
    complete: int = 0
    pruned: int = 0
    created: str = ""
    last_trial: str = ""
    folder: str = ""
    artifact_bytes: int | None = None

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


def study_overviews(
    storage: ResilientStorage, artifacts: ArtifactPath | None = None
) -> list[StudyOverview]:
    """Returns an overview of each study in a database, by name.

    Args:
        storage: The database.
        artifacts: The artifact folder, to look how large the studies' folders are; None not to.
    """
    return [_overview(storage, name, artifacts) for name in study_names(storage)]


def _overview(
    storage: ResilientStorage, name: str, artifacts: ArtifactPath | None
) -> StudyOverview:
    try:
        stored = load_study(storage, name)
        counts = Coordinator(stored).counts()
        best_db = _best_db(stored)
        created, last_trial = _dates(stored)
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
        complete=counts.complete,
        pruned=counts.pruned,
        created=created,
        last_trial=last_trial,
        folder=stored.folder,
        artifact_bytes=_artifact_bytes(artifacts, stored.folder),
    )


def _artifact_bytes(artifacts: ArtifactPath | None, folder: str) -> int | None:
    if artifacts is None:
        return None
    place = artifacts / folder
    if isinstance(place, RemotePath):
        try:
            return size_of(place) or None
        except OSError as e:
            log.warning("%s: the size of its files is not known: %s", place, e.strerror or e)
            return None
    return size_of(place) if place.is_dir() else None


def _dates(stored: StoredStudy) -> tuple[str, str]:
    """Returns when a study was made and when a trial of it last began or ended, as ISO 8601."""
    changed = sa.func.coalesce(trials.c.datetime_complete, trials.c.datetime_start)
    query = sa.select(sa.func.min(trials.c.datetime_start), sa.func.max(changed))
    with stored.storage.engine.connect() as connection:
        first, last = connection.execute(query.where(trials.c.study_id == stored.id)).one()
    made_s = stored.study.user_attrs.get(CREATED)
    made = first if made_s is None else datetime.fromtimestamp(made_s, UTC).replace(tzinfo=None)
    return _iso(made), _iso(last)


def _iso(at: datetime | None) -> str:
    return "" if at is None else at.replace(tzinfo=UTC).isoformat(timespec="seconds")


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
