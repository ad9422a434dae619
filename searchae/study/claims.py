"""What is decided under a study's lock: who died, how many are left, who takes which trial.

All of it happens in the one transaction that holds the lock: a claim is there whole or not at
all, also when its process or its connection dies in the middle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.config import SearchSpec
from searchae.storage import (
    UNFINISHED,
    studies,
    study_attributes,
    trials,
    upsert,
    upsert_if_unfinished,
    user_attributes,
    utc_now,
)
from searchae.study.attributes import BUDGET, IMPORTED, OUTCOME, STOPPED, TIME_LIMIT
from searchae.study.process import ProcessIdentity, process_is_gone

metadata = sa.MetaData()

leases = sa.Table(
    "searchae_leases",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("worker", sa.String(64)),  # empty while nobody holds it
    sa.Column("place", sa.String(255)),
    sa.Column("process", sa.String(64)),
    sa.Column("beat_at", sa.Double, nullable=False),
    sa.Column("losses", sa.Integer, nullable=False),
)


class NoTrial(Enum):
    """Why there is no trial to claim."""

    DONE = "the budget is spent"
    WAIT = "the rest of the budget is being worked on"
    TIME_UP = "the study's time is up"


@dataclass(frozen=True)
class TrialCounts:
    """How far a study is.

    Attributes:
        budget: Trials wanted.
        complete: Trained to the end.
        pruned: Stopped by the pruner.
        failed: Lost for good, or a bug; they do not count.
        running: Being worked on.
        waiting: Put back, to be gone on with.
    """

    budget: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int

    @property
    def finished(self) -> int:
        """Trials that count towards the budget."""
        return self.complete + self.pruned

    @classmethod
    def of(cls, by_state: dict[str, int], attributes: dict[str, Any], default: int) -> TrialCounts:
        """From the trials by state and the study's attributes; imported trials do not count."""
        imported = attributes.get(IMPORTED, {})
        return cls(
            budget=attributes.get(BUDGET, default),
            complete=by_state.get("COMPLETE", 0) - imported.get("complete", 0),
            pruned=by_state.get("PRUNED", 0) - imported.get("pruned", 0),
            failed=by_state.get("FAIL", 0),
            running=by_state.get("RUNNING", 0),
            waiting=by_state.get("WAITING", 0),
        )


@dataclass(frozen=True)
class LockedStudy:
    """One process's turn under a study's lock.

    Attributes:
        connection: Holds the lock; its transaction is committed by whoever made it.
        study_id: The study's id in the database.
        search: Its budget, its grace and how many losses a trial may have.
        identity: Whose turn it is.
        now: The database's clock, in seconds since 1970.
    """

    connection: sa.Connection
    study_id: int
    search: SearchSpec
    identity: ProcessIdentity
    now: sa.ColumnElement[float]

    def claim(self, *, trust_silence: bool, created: Callable[[], None]) -> int | NoTrial:
        """Takes a trial, if the budget has one left; see ``Ledger.claim``."""
        self.reap(trust_silence=trust_silence, claiming=True)
        attributes = self._attributes()
        query = sa.select(
            trials.c.state,
            sa.func.count().label("n"),
            sa.func.min(trials.c.trial_id).label("first"),
            self.now.label("now"),
        )
        in_study = trials.c.study_id == self.study_id
        rows = self.connection.execute(query.where(in_study).group_by(trials.c.state)).all()
        counts = TrialCounts.of(
            {r.state.name: int(r.n) for r in rows}, attributes, self.search.trials
        )
        if counts.finished >= counts.budget:
            return NoTrial.DONE
        limit = attributes.get(TIME_LIMIT)
        if limit is not None and self._time(rows) >= limit:
            return NoTrial.TIME_UP
        if counts.finished + counts.running >= counts.budget:
            return NoTrial.WAIT
        waiting = [r.first for r in rows if r.state == TrialState.WAITING]
        trial_id = (
            self._take(waiting[0]) if waiting else self._create(number=sum(r.n for r in rows))
        )
        created()
        self._lease(trial_id)
        return trial_id

    def reap(self, *, trust_silence: bool, claiming: bool = False) -> int:
        """Puts back every trial whose worker is gone; see ``Ledger.reap``."""
        # Without a lease: nobody works on it. Leased to us while we claim: it was claimed
        # before, and the answer was lost.
        nobody: sa.ColumnElement[bool] = leases.c.worker.is_(None)
        if claiming:
            nobody |= leases.c.worker == self.identity.worker
        silent = leases.c.beat_at < self.now - self.search.grace_s if trust_silence else sa.false()
        # Of the rest, only processes of this machine can be seen to be gone.
        here = leases.c.place == ProcessIdentity.of_this_process().place
        query = (
            sa.select(
                trials.c.trial_id,
                nobody.label("nobody"),
                silent.label("silent"),
                leases.c.place,
                leases.c.process,
            )
            .select_from(trials.outerjoin(leases, leases.c.trial_id == trials.c.trial_id))
            .where(trials.c.study_id == self.study_id, trials.c.state == TrialState.RUNNING)
            .where(nobody | silent | here)
        )
        rows = self.connection.execute(query).all()
        unclaimed = [r.trial_id for r in rows if r.nobody]
        gone = [
            r.trial_id
            for r in rows
            if not r.nobody and (r.silent or process_is_gone(r.place, r.process))
        ]
        for trial_id in unclaimed:
            self.put_back(trial_id)
        for trial_id in gone:
            self._bury(trial_id)
        return len(unclaimed) + len(gone)

    def put_back(self, trial_id: int) -> None:
        """Lets anybody go on with a trial, unless it has ended meanwhile."""
        self._set_state(trial_id, TrialState.WAITING)
        self.connection.execute(
            sa.update(leases).where(leases.c.trial_id == trial_id).values(worker=None)
        )

    def holds(self, trial_id: int) -> bool:
        """Whether the lease of a trial is this process's."""
        query = sa.select(leases.c.worker).where(leases.c.trial_id == trial_id)
        return self.connection.scalar(query) == self.identity.worker

    def _create(self, *, number: int) -> int:
        row = {"number": number, "study_id": self.study_id, "state": TrialState.RUNNING}
        made = sa.insert(trials).values(datetime_start=utc_now(), **row)
        return int(self.connection.scalar(made.returning(trials.c.trial_id)))

    def _take(self, trial_id: int) -> int:
        """Sets the oldest trial that was put back RUNNING."""
        first_start = sa.func.coalesce(trials.c.datetime_start, utc_now())
        self._set_state(trial_id, TrialState.RUNNING, datetime_start=first_start)
        return int(trial_id)

    def _lease(self, trial_id: int) -> None:
        row = {
            "trial_id": trial_id,
            "study_id": self.study_id,
            "worker": self.identity.worker,
            "place": self.identity.place,
            "process": self.identity.process,
            "beat_at": self.now,
            "losses": 0,
        }
        dialect = self.connection.dialect.name
        self.connection.execute(upsert(dialect, leases, ["trial_id"], row, keep=["losses"]))

    def _bury(self, trial_id: int) -> None:
        """Puts back a trial whose worker died; gives it up after too many deaths."""
        losses = self.connection.scalar(
            sa.update(leases)
            .where(leases.c.trial_id == trial_id)
            .values(worker=None, losses=leases.c.losses + 1)
            .returning(leases.c.losses)
        )
        if (losses or 0) < self.search.max_attempts:
            self._set_state(trial_id, TrialState.WAITING)
            return
        lost = {"trial": trial_id, "key": OUTCOME, "value_json": json.dumps("lost")}
        dialect = self.connection.dialect.name
        self.connection.execute(upsert_if_unfinished(dialect, user_attributes, "key"), lost)
        self._set_state(trial_id, TrialState.FAIL, datetime_complete=utc_now())
        self._stop_if_workers_keep_dying()

    def _stop_if_workers_keep_dying(self) -> None:
        """A machine that kills every worker would go on for ever: lost trials do not count."""
        query = (
            sa.select(sa.func.count())
            .select_from(user_attributes.join(trials))
            .where(trials.c.study_id == self.study_id, trials.c.state == TrialState.FAIL)
            .where(user_attributes.c.key == OUTCOME)
            .where(user_attributes.c.value_json == json.dumps("lost"))
        )
        lost = self.connection.scalar(query)
        if not lost or lost % 5:
            return
        message = (
            f"{lost} trials were given up because their workers kept dying (out of the "
            "machine's memory?): lower --workers, train.batch_size or the model's widths"
        )
        row = {"study_id": self.study_id, "key": STOPPED, "value_json": json.dumps(message)}
        dialect = self.connection.dialect.name
        self.connection.execute(upsert(dialect, study_attributes, ["study_id", "key"], row))

    def _set_state(self, trial_id: int, state: TrialState, **times: Any) -> None:
        # Its worker may have finished it between our look and now: then nothing is left to do.
        unfinished = trials.c.state.in_(UNFINISHED)
        self.connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id == trial_id, unfinished)
            .values(state=state, **times)
        )

    def _attributes(self) -> dict[str, Any]:
        """The study's; its row is locked, so that Optuna itself gives out no number meanwhile."""
        on = study_attributes.c.study_id == studies.c.study_id
        query = (
            sa.select(study_attributes.c.key, study_attributes.c.value_json)
            .select_from(studies.outerjoin(study_attributes, on))
            .where(studies.c.study_id == self.study_id)
            .with_for_update(of=studies, key_share=True)
        )
        rows = self.connection.execute(query)
        return {key: json.loads(value) for key, value in rows if key is not None}

    def _time(self, rows: Any) -> float:
        now: float = (
            rows[0].now if rows else self.connection.execute(sa.select(self.now)).scalar_one()
        )
        return now
