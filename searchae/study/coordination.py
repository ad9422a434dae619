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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.storage import ResilientStorage, exclusive_lock, finish_trial, locked_transaction
from searchae.storage import trials as _trials
from searchae.study.attributes import BUDGET, QUARANTINED, STOPPED, TIME_LIMIT
from searchae.study.claims import LockedStudy, NoTrial, TrialCounts, metadata
from searchae.study.claims import leases as _leases
from searchae.study.process import ProcessIdentity, process_is_gone
from searchae.study.stored import StoredStudy

_workers = sa.Table(
    "searchae_workers",
    metadata,
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


@dataclass(frozen=True)
class WorkerInfo:
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
class Coordinator:
    """One study's ledger, as one process sees it.

    Args:
        stored: The study.
        identity: Who claims; anything that only counts may use its own process.
        created: Called inside the lock right after a trial is created (a port for tests).
    """

    stored: StoredStudy
    identity: ProcessIdentity = field(default_factory=ProcessIdentity.of_this_process)
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

    def set_time_limit(self, seconds: float | None) -> None:
        """Ends the study's work so many seconds from now, for every worker; None for never."""
        end = None if seconds is None else self._clock() + seconds
        self.stored.study.set_user_attr(TIME_LIMIT, end)

    def seconds_left(self) -> float | None:
        """Until the time limit, by the database's clock; None without one."""
        end = self._attributes().get(TIME_LIMIT)
        return None if end is None else end - self._clock()

    def quarantine(self, reason: str) -> None:
        """Notes that this worker's machine fails where others may not."""
        me = self.identity
        text = f"{me.host}, pid {me.pid}: {reason}"
        self.stored.study.set_user_attr(QUARANTINED + me.worker, text)

    def quarantined(self) -> list[str]:
        """Why which workers left for good since the last ``clear_stop``, a line each."""
        found = self._attributes()
        return [str(v) for k, v in found.items() if k.startswith(QUARANTINED) and v]

    def stop(self, message: str) -> None:
        """Tells every worker to claim nothing more; ``message`` says why."""
        self.stored.study.set_user_attr(STOPPED, message)

    def clear_stop(self) -> None:
        """Lets workers claim again after a stop, and forgets who was quarantined."""
        for key, value in self._attributes().items():
            if value and (key == STOPPED or key.startswith(QUARANTINED)):
                self.stored.study.set_user_attr(key, "")

    def stopped(self) -> str:
        """Why the study was stopped early; empty if it was not."""
        return str(self._attributes().get(STOPPED, ""))

    def counts(self) -> TrialCounts:
        """Counts the trials by state; those imported by a warm start do not count."""
        by_state = self._storage.retried(self._count)
        return TrialCounts.of(by_state, self._attributes(), self._search.trials)

    # -- claims

    def claim(self, *, trust_silence: bool = True) -> int | NoTrial:
        """Takes a trial to work on, if the budget has one left.

        Args:
            trust_silence: See ``reap``.

        Returns:
            The trial's id in the database, now RUNNING and leased to this worker.
        """

        def take() -> int | NoTrial:
            with self._turn() as turn:
                return turn.claim(trust_silence=trust_silence, created=self.created)

        taken: int | NoTrial = self._storage.retried(take)
        return taken

    def holds(self, trial_id: int) -> bool:
        """Whether this worker still has the lease of a trial."""
        query = sa.select(_leases.c.worker).where(_leases.c.trial_id == trial_id)
        rows = self._storage.retried(lambda: self._rows(query))
        return [r.worker for r in rows] == [self.identity.worker]

    def release(self, trial_id: int) -> None:
        """Puts back a trial that this worker holds, to be gone on with by anybody."""

        def put_back() -> None:
            with self._turn() as turn:
                if turn.holds(trial_id):
                    turn.put_back(trial_id)

        self._storage.retried(put_back)

    def finish(self, trial_id: int, state: TrialState, value: float | None) -> bool:
        """Ends a trial that this worker holds and drops its lease: both or neither.

        Returns:
            Whether it has ended this way; False if it was taken away.
        """

        def end() -> bool:
            with self._engine.connect() as connection, connection.begin() as transaction:
                if connection.execute(self._my_lease(trial_id)).rowcount == 0:
                    # The first answer may have been lost: then it has ended our way.
                    leased = sa.select(_leases).where(_leases.c.trial_id == trial_id).exists()
                    query = sa.select(_trials.c.state).where(_trials.c.trial_id == trial_id)
                    return connection.scalar(query.where(~leased)) == state
                ended = finish_trial(connection, trial_id, state, value)
                if not ended:
                    transaction.rollback()
                return ended

        ended: bool = self._storage.retried(end)
        return ended

    def forget(self, trial_id: int) -> None:
        """Drops the lease of a trial that has ended."""
        self._write(self._my_lease(trial_id))

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

    def workers(self) -> list[WorkerInfo]:
        """Workers that gave a sign of life within the grace, the oldest first."""

        def read() -> list[WorkerInfo]:
            query = sa.select(_workers, self._now().label("now")).where(
                _workers.c.study_id == self._study_id,
                _workers.c.beat_at > self._now() - self._search.grace_s,
            )
            rows = self._rows(query.order_by(_workers.c.started_at))
            return [
                WorkerInfo(
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
                if not process_is_gone(r.place, r.process)
            ]

        rows: list[WorkerInfo] = self._storage.retried(read)
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

        def look() -> int:
            with self._turn() as turn:
                return turn.reap(trust_silence=trust_silence)

        reaped: int = self._storage.retried(look)
        return reaped

    # -- plumbing

    @contextmanager
    def _turn(self) -> Iterator[LockedStudy]:
        with locked_transaction(self._engine, self._study_id) as connection:
            yield LockedStudy(connection, self._study_id, self._search, self.identity, self._now())

    def _my_lease(self, trial_id: int) -> sa.Delete:
        return sa.delete(_leases).where(
            _leases.c.trial_id == trial_id, _leases.c.worker == self.identity.worker
        )

    def _create_tables(self) -> None:
        with exclusive_lock(self._engine, 0):
            metadata.create_all(self._engine)

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

    def _clock(self) -> float:
        seconds: float = self._storage.retried(
            lambda: self._rows(sa.select(self._now().label("now")))[0].now
        )
        return seconds

    def _now(self) -> sa.ColumnElement[float]:
        """Seconds since 1970 by the database's clock, so that machines need not agree."""
        if self._engine.dialect.name == "postgresql":
            return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
        return sa.literal(time.time(), sa.Double)
