"""The exact budget: who works on which trial, and how many are left.

A study's budget is the number of trials that end COMPLETE or PRUNED. A trial is claimed under
one lock a study: reap, count, take (a trial that was put back, else a new one). A claim comes
with a lease that its worker renews; a lease not renewed within the grace, or whose process is
seen to be gone, is reaped: the trial keeps its number, parameters and reports, is put back as
WAITING, and goes on from its last checkpoint on the next worker. So nothing is lost, nothing is
doubled, and a run that dies is charged once.

Of two workers that believe they hold one trial (one was stopped past the grace and woke up),
only one can end it: the database lets a trial finish once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.identity import Identity, is_gone
from searchae.storage import ResilientStorage, exclusive
from searchae.study import BUDGET, IMPORTED, OUTCOME, STOPPED, Stored

_tables = sa.MetaData()

_leases = sa.Table(
    "searchae_leases",
    _tables,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("worker", sa.String(64)),  # empty while nobody holds it
    sa.Column("place", sa.String(255)),
    sa.Column("process", sa.String(64)),
    sa.Column("beat_at", sa.Double, nullable=False),
    sa.Column("losses", sa.Integer, nullable=False),
)

_workers = sa.Table(
    "searchae_workers",
    _tables,
    sa.Column("worker", sa.String(64), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("place", sa.String(255), nullable=False),
    sa.Column("process", sa.String(64), nullable=False),
    sa.Column("device", sa.String(64), nullable=False),
    sa.Column("trial", sa.Integer),
    sa.Column("epoch", sa.Integer),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("beat_at", sa.Double, nullable=False),
)

# Optuna's own tables, as far as they are counted here.
_trials = sa.table(
    "trials",
    sa.column("trial_id"),
    sa.column("number"),
    sa.column("study_id"),
    sa.column("state", sa.Enum(TrialState)),
)


class Nothing(Enum):
    """Why there is no trial to claim."""

    DONE = "the budget is spent"
    WAIT = "the rest of the budget is being worked on"


@dataclass(frozen=True)
class Counts:
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


@dataclass(frozen=True)
class WorkerRow:
    """A worker as the ledger last heard of it. Times in seconds."""

    worker: str
    host: str
    pid: int
    device: str
    trial: int | None
    epoch: int | None
    age_s: float
    silent_s: float


@dataclass
class Ledger:
    """One study's ledger, as one process sees it.

    Args:
        stored: The study.
        identity: Who claims; anything that only counts may use its own process.
        created: Called inside the lock right after a trial is created (a port for tests).
    """

    stored: Stored
    identity: Identity = field(default_factory=Identity.of_this_process)
    created: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._storage: ResilientStorage = self.stored.storage
        self._engine = self._storage.engine
        self._study_id = self.stored.id
        self._search = self.stored.spec.search
        self._storage.retried(self._create_tables)

    # -- the budget

    def set_budget(self, trials: int) -> None:
        """Sets how many trials shall end COMPLETE or PRUNED."""
        self.stored.study.set_user_attr(BUDGET, trials)

    def stop(self, message: str) -> None:
        """Tells every worker to claim nothing more; ``message`` says why."""
        self.stored.study.set_user_attr(STOPPED, message)

    def clear_stop(self) -> None:
        """Lets workers claim again after a stop."""
        if self.stopped():
            self.stored.study.set_user_attr(STOPPED, "")

    def stopped(self) -> str:
        """Why the study was stopped early; empty if it was not."""
        return str(self._attributes().get(STOPPED, ""))

    def counts(self) -> Counts:
        """Counts the trials by state; those imported by a warm start do not count."""
        attributes = self._attributes()
        by_state = self._storage.retried(self._count)
        imported = attributes.get(IMPORTED, {})
        return Counts(
            budget=attributes.get(BUDGET, self._search.trials),
            complete=by_state.get("COMPLETE", 0) - imported.get("complete", 0),
            pruned=by_state.get("PRUNED", 0) - imported.get("pruned", 0),
            failed=by_state.get("FAIL", 0),
            running=by_state.get("RUNNING", 0),
            waiting=by_state.get("WAITING", 0),
        )

    # -- claims

    def claim(self, *, trust_silence: bool = True) -> int | Nothing:
        """Takes a trial to work on, if the budget has one left.

        Args:
            trust_silence: See ``reap``.

        Returns:
            The trial's id in the database, now RUNNING and leased to this worker.
        """
        taken: int | Nothing = self._storage.retried(lambda: self._claim(trust_silence))
        return taken

    def _claim(self, trust_silence: bool) -> int | Nothing:
        with exclusive(self._engine, self._study_id) as still_held:
            self._reap(trust_silence, claiming=True)
            counts = self.counts()
            if counts.finished >= counts.budget:
                return Nothing.DONE
            if counts.finished + counts.running >= counts.budget:
                return Nothing.WAIT
            trial_id = self._take_waiting()
            if trial_id is None:
                trial_id = self._storage.create_new_trial(self._study_id)
            self.created()
            self._lease(trial_id)
            try:
                still_held()
            except sa.exc.SQLAlchemyError:
                # Somebody else may have counted meanwhile; this one could be one too many.
                self._put_back(trial_id)
                raise
        return trial_id

    def _take_waiting(self) -> int | None:
        """Sets the oldest trial that was put back RUNNING."""
        query = (
            sa.select(_trials.c.trial_id)
            .where(_trials.c.study_id == self._study_id, _trials.c.state == TrialState.WAITING)
            .order_by(_trials.c.number)
        )
        for trial_id in self._rows(query):
            if self._storage.set_trial_state_values(trial_id.trial_id, state=TrialState.RUNNING):
                return int(trial_id.trial_id)
        return None

    def _lease(self, trial_id: int) -> None:
        values = {
            "worker": self.identity.worker,
            "place": self.identity.place,
            "process": self.identity.process,
            "beat_at": self._now(),
        }
        with self._engine.begin() as connection:
            changed = connection.execute(
                sa.update(_leases).where(_leases.c.trial_id == trial_id).values(**values)
            )
            if changed.rowcount == 0:
                connection.execute(
                    sa.insert(_leases).values(
                        trial_id=trial_id, study_id=self._study_id, losses=0, **values
                    )
                )

    def holds(self, trial_id: int) -> bool:
        """Whether this worker still has the lease of a trial."""
        query = sa.select(_leases.c.worker).where(_leases.c.trial_id == trial_id)
        rows = self._storage.retried(lambda: self._rows(query))
        return [r.worker for r in rows] == [self.identity.worker]

    def release(self, trial_id: int) -> None:
        """Puts back a trial that this worker holds, to be gone on with by anybody."""

        def put_back() -> None:
            with exclusive(self._engine, self._study_id):
                if self.holds(trial_id):
                    self._put_back(trial_id)

        self._storage.retried(put_back)

    def forget(self, trial_id: int) -> None:
        """Drops the lease of a trial that has ended."""
        self._write(
            sa.delete(_leases).where(
                _leases.c.trial_id == trial_id, _leases.c.worker == self.identity.worker
            )
        )

    # -- signs of life

    def join(self, device: str) -> None:
        """Puts this worker on the list of the living."""
        now = self._now()
        row = {
            "worker": self.identity.worker,
            "study_id": self._study_id,
            "host": self.identity.host,
            "pid": self.identity.pid,
            "place": self.identity.place,
            "process": self.identity.process,
            "device": device,
        }
        # Those who died without leaving would pile up.
        old = (_workers.c.worker == self.identity.worker) | (
            _workers.c.beat_at < now - 10 * self._search.grace_s
        )
        self._write(
            sa.delete(_workers).where(old),
            sa.insert(_workers).values(started_at=now, beat_at=now, **row),
        )

    def leave(self) -> None:
        """Takes this worker off the list."""
        self._write(sa.delete(_workers).where(_workers.c.worker == self.identity.worker))

    def beat(self, trial_id: int | None, *, number: int | None, epoch: int | None) -> bool:
        """Renews the lease and the worker's sign of life, once; raises if the database is away.

        Returns:
            Whether the lease is still this worker's; True without a trial.
        """
        now = self._now()
        me = self.identity.worker
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(_workers)
                .where(_workers.c.worker == me)
                .values(beat_at=now, trial=number, epoch=epoch)
            )
            if trial_id is None:
                return True
            changed = connection.execute(
                sa.update(_leases)
                .where(_leases.c.trial_id == trial_id, _leases.c.worker == me)
                .values(beat_at=now)
            )
            return changed.rowcount == 1

    def workers(self) -> list[WorkerRow]:
        """Workers that gave a sign of life within the grace, the oldest first."""

        def read() -> list[WorkerRow]:
            query = sa.select(_workers, self._now().label("now")).where(
                _workers.c.study_id == self._study_id,
                _workers.c.beat_at > self._now() - self._search.grace_s,
            )
            rows = self._rows(query.order_by(_workers.c.started_at))
            return [
                WorkerRow(
                    worker=r.worker,
                    host=r.host,
                    pid=r.pid,
                    device=r.device,
                    trial=r.trial,
                    epoch=r.epoch,
                    age_s=r.now - r.started_at,
                    silent_s=r.now - r.beat_at,
                )
                for r in rows
                if not is_gone(r.place, r.process)
            ]

        rows: list[WorkerRow] = self._storage.retried(read)
        return rows

    # -- reaping

    def reap(self, *, trust_silence: bool = True) -> int:
        """Puts back every trial whose worker is gone.

        Args:
            trust_silence: Take a worker for dead that has been silent for the grace. After an
                outage that outlasts the grace every lease looks stale, also of workers that
                live: let these beat first, and go by processes seen to be gone.

        Returns:
            How many were put back or given up.
        """

        def locked() -> int:
            with exclusive(self._engine, self._study_id):
                return self._reap(trust_silence)

        reaped: int = self._storage.retried(locked)
        return reaped

    def _reap(self, trust_silence: bool, *, claiming: bool = False) -> int:
        query = (
            sa.select(
                _trials.c.trial_id,
                _leases.c.worker,
                _leases.c.place,
                _leases.c.process,
                (_leases.c.beat_at < self._now() - self._search.grace_s).label("silent"),
            )
            .select_from(_trials.outerjoin(_leases, _leases.c.trial_id == _trials.c.trial_id))
            .where(_trials.c.study_id == self._study_id, _trials.c.state == TrialState.RUNNING)
        )
        rows = self._rows(query)
        # Without a lease: its claimer died inside the lock, which we hold, before any work.
        # Leased to us while we claim: it was claimed before, and the answer was lost.
        nobody = {None, self.identity.worker} if claiming else {None}
        unclaimed = [r.trial_id for r in rows if r.worker in nobody]
        gone = [
            r.trial_id
            for r in rows
            if r.worker not in nobody
            and ((r.silent and trust_silence) or is_gone(r.place, r.process))
        ]
        for trial_id in unclaimed:
            self._put_back(trial_id)
        for trial_id in gone:
            self._bury(trial_id)
        return len(unclaimed) + len(gone)

    def _bury(self, trial_id: int) -> None:
        """Puts back a trial whose worker died; gives it up after too many deaths."""
        lost = sa.update(_leases).where(_leases.c.trial_id == trial_id)
        with self._engine.begin() as connection:
            connection.execute(lost.values(worker=None, losses=_leases.c.losses + 1))
            losses = connection.scalar(
                sa.select(_leases.c.losses).where(_leases.c.trial_id == trial_id)
            )
        if (losses or 0) >= self._search.max_attempts:
            self._storage.set_trial_user_attr(trial_id, OUTCOME, "lost")
            self._end(trial_id, TrialState.FAIL)
            self._stop_if_workers_keep_dying()
        else:
            self._end(trial_id, TrialState.WAITING)

    def _stop_if_workers_keep_dying(self) -> None:
        """A machine that kills every worker would go on for ever: lost trials do not count."""
        lost = [
            t
            for t in self.stored.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            if t.user_attrs.get(OUTCOME) == "lost"
        ]
        if len(lost) % 5 == 0:
            self.stop(
                f"{len(lost)} trials were given up because their workers kept dying (out of the "
                "machine's memory?): lower --workers, train.batch_size or the model's widths"
            )

    def _put_back(self, trial_id: int) -> None:
        self._end(trial_id, TrialState.WAITING)
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(_leases).where(_leases.c.trial_id == trial_id).values(worker=None)
            )

    def _end(self, trial_id: int, state: TrialState) -> None:
        try:
            self._storage.set_trial_state_values(trial_id, state=state)
        except optuna.exceptions.UpdateFinishedTrialError:
            # Its worker finished it between our look and now: nothing is left to do.
            return

    # -- plumbing

    def _create_tables(self) -> None:
        with exclusive(self._engine, 0):
            _tables.create_all(self._engine)

    def _attributes(self) -> dict[str, Any]:
        return self._storage.get_study_user_attrs(self._study_id)

    def _count(self) -> dict[str, int]:
        query = (
            sa.select(_trials.c.state, sa.func.count().label("n"))
            .where(_trials.c.study_id == self._study_id)
            .group_by(_trials.c.state)
        )
        return {r.state.name: int(r.n) for r in self._rows(query)}

    def _write(self, *statements: sa.Executable) -> None:
        """Runs statements that may be repeated, in one transaction, once the database answers."""

        def run() -> None:
            with self._engine.begin() as connection:
                for statement in statements:
                    connection.execute(statement)

        self._storage.retried(run)

    def _rows(self, query: sa.Select[Any]) -> list[Any]:
        with self._engine.begin() as connection:
            return list(connection.execute(query))

    def _now(self) -> sa.ColumnElement[float]:
        """Seconds since 1970 by the database's clock, so that machines need not agree."""
        if self._engine.dialect.name == "postgresql":
            return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
        return sa.literal(time.time(), sa.Double)
