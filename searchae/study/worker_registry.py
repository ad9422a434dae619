"""The registry of workers: who works on a study, and when each was last heard of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from searchae.study.process_identity import process_is_gone
from searchae.study.transaction import StudyTransaction, database_time, metadata

workers = sa.Table(
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
    """A worker as of its last heartbeat.

    Attributes:
        worker: Its unique name.
        host: The name of its machine.
        pid: Its process id there.
        device: The device it trains on.
        trial: The number of the trial it trains; None between two trials.
        epoch: The last epoch of that trial; None before the first.
        age_s: Seconds since it registered.
        silent_s: Seconds since its last heartbeat.
    """

    worker: str
    host: str
    pid: int
    device: str
    trial: int | None
    epoch: int | None
    age_s: float
    silent_s: float


def register(transaction: StudyTransaction, device: str) -> None:
    """Adds this process to the registry, and removes workers that died long ago.

    Args:
        transaction: A transaction.
        device: The device that this worker trains on, for people.
    """
    identity, now = transaction.identity, transaction.now
    row = {
        "worker": identity.worker,
        "study_id": transaction.study_id,
        "host": identity.host,
        "pid": identity.pid,
        "place": identity.place,
        "process": identity.process,
        "device": device,
    }
    dead = workers.c.beat_at < now - 10 * transaction.search.grace_s
    transaction.connection.execute(
        sa.delete(workers).where((workers.c.worker == identity.worker) | dead)
    )
    transaction.connection.execute(sa.insert(workers).values(started_at=now, beat_at=now, **row))


def unregister(transaction: StudyTransaction) -> None:
    """Removes this process from the registry."""
    transaction.connection.execute(
        sa.delete(workers).where(workers.c.worker == transaction.identity.worker)
    )


def record_heartbeat(
    transaction: StudyTransaction, *, number: int | None, epoch: int | None
) -> None:
    """Notes that this process is alive.

    Args:
        transaction: A transaction.
        number: The number of the trial that it trains, if any.
        epoch: The last epoch of that trial, if any.
    """
    transaction.connection.execute(
        sa.update(workers)
        .where(workers.c.worker == transaction.identity.worker)
        .values(beat_at=transaction.now, trial=number, epoch=epoch)
    )


def live_workers(transaction: StudyTransaction) -> list[WorkerInfo]:
    """Returns the workers heard of within the grace period, the longest registered first.

    Those whose process is seen to be gone from this machine are left out.
    """
    oldest_beat = transaction.now - transaction.search.grace_s
    query = (
        sa.select(workers, transaction.now.label("now"))
        .where(workers.c.study_id == transaction.study_id, workers.c.beat_at > oldest_beat)
        .order_by(workers.c.started_at)
    )
    return [
        WorkerInfo(
            worker=row.worker,
            host=row.host,
            pid=row.pid,
            device=row.device,
            trial=row.trial,
            epoch=row.epoch,
            age_s=row.now - row.started_at,
            silent_s=row.now - row.beat_at,
        )
        for row in transaction.connection.execute(query)
        if not process_is_gone(row.place, row.process)
    ]


def count_live(connection: sa.Connection, grace_s: Mapping[int, float]) -> Counter[int]:
    """Counts the workers of all studies as ``live_workers`` does those of one.

    Args:
        connection: A connection with a transaction, to a database that has the table.
        grace_s: Study id -> its grace period in seconds; workers of other studies do not count.

    Returns:
        Study id -> number of workers.
    """
    silent_s = (database_time(connection) - workers.c.beat_at).label("silent_s")
    query = sa.select(workers.c.study_id, workers.c.place, workers.c.process, silent_s)
    return Counter(
        row.study_id
        for row in connection.execute(query)
        if row.silent_s < grace_s.get(row.study_id, 0.0)
        and not process_is_gone(row.place, row.process)
    )
