"""Leases: which worker holds which trial, and what happens to trials whose worker has died.

A worker renews the lease of its trial with each heartbeat. A lease that was not renewed within the
grace period, or whose process is seen to be gone, is reaped: the trial is put back, and given up
after ``search.max_attempts`` such losses.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.storage import (
    trials,
    upsert,
    upsert_if_unfinished,
    user_attributes,
    utc_now,
)
from searchae.study.attributes import OUTCOME, STOPPED
from searchae.study.process_identity import ProcessIdentity, process_is_gone
from searchae.study.transaction import StudyTransaction, metadata

LOST = "lost"
"""The ``OUTCOME`` of a trial that was given up because its workers died."""
STOP_AFTER_LOST = 5
"""Each time that so many more trials are lost, the study is stopped."""

leases = sa.Table(
    "searchae_leases",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("worker", sa.String(64)),  # NULL while no worker holds the trial
    sa.Column("place", sa.String(255)),
    sa.Column("process", sa.String(64)),
    sa.Column("beat_at", sa.Double, nullable=False),
    sa.Column("losses", sa.Integer, nullable=False),
)


def grant(transaction: StudyTransaction, trial_id: int, *, is_new: bool) -> None:
    """Leases a trial to this process.

    Args:
        transaction: A transaction that holds the study's lock.
        trial_id: The trial.
        is_new: Whether it has just been created. Otherwise it is kept how often it was lost before:
            SQLite gives the id of a deleted trial, which has left a lease, to a new one.
    """
    identity = transaction.identity
    row = {
        "trial_id": trial_id,
        "study_id": transaction.study_id,
        "worker": identity.worker,
        "place": identity.place,
        "process": identity.process,
        "beat_at": transaction.now,
        "losses": 0,
    }
    dialect, kept = transaction.connection.dialect.name, [] if is_new else ["losses"]
    transaction.connection.execute(upsert(dialect, leases, ["trial_id"], row, keep=kept))


def renew(transaction: StudyTransaction, trial_id: int) -> bool:
    """Renews this process's lease of a trial; returns False if it has none."""
    renewed = transaction.connection.execute(
        sa.update(leases)
        .where(*_is_own_lease(transaction, trial_id))
        .values(beat_at=transaction.now)
    )
    return renewed.rowcount == 1


def drop(transaction: StudyTransaction, trial_id: int) -> bool:
    """Deletes this process's lease of a trial; returns False if it has none."""
    deleted = transaction.connection.execute(
        sa.delete(leases).where(*_is_own_lease(transaction, trial_id))
    )
    return deleted.rowcount == 1


def is_held(transaction: StudyTransaction, trial_id: int) -> bool:
    """Returns whether this process has the lease of a trial."""
    query = sa.select(leases.c.trial_id).where(*_is_own_lease(transaction, trial_id))
    return transaction.connection.scalar(query) is not None


def is_leased(transaction: StudyTransaction, trial_id: int) -> bool:
    """Returns whether a trial has a lease, held by a worker or not."""
    query = sa.select(leases.c.trial_id).where(leases.c.trial_id == trial_id)
    return transaction.connection.scalar(query) is not None


def put_back(transaction: StudyTransaction, trial_id: int) -> None:
    """Sets a trial WAITING for the next worker, unless it has ended meanwhile."""
    transaction.set_state(trial_id, TrialState.WAITING)
    transaction.connection.execute(
        sa.update(leases).where(leases.c.trial_id == trial_id).values(worker=None)
    )


def reap(transaction: StudyTransaction, *, trust_silence: bool, claiming: bool) -> int:
    """Puts back or gives up the trials whose worker is gone. Takes the study's lock.

    Args:
        transaction: A transaction that holds the study's lock.
        trust_silence: Treat workers as dead whose lease was not renewed within the grace period.
        claiming: This process is about to claim a trial, and so holds none: if it has a lease, the
            answer to an earlier claim was lost, and that trial is put back too.

    Returns:
        How many trials were put back or given up.
    """
    nobody: sa.ColumnElement[bool] = leases.c.worker.is_(None)  # also true without a lease
    if claiming:
        nobody |= leases.c.worker == transaction.identity.worker
    oldest_beat = transaction.now - transaction.search.grace_s
    silent = leases.c.beat_at < oldest_beat if trust_silence else sa.false()
    # Whether the process of any other lease has ended can only be seen on its own machine.
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
        .where(trials.c.study_id == transaction.study_id, trials.c.state == TrialState.RUNNING)
        .where(nobody | silent | here)
    )
    reaped = 0
    for row in transaction.connection.execute(query).all():
        if row.nobody:
            put_back(transaction, row.trial_id)
        elif row.silent or process_is_gone(row.place, row.process):
            _fail_or_put_back(transaction, row.trial_id)
        else:
            continue
        reaped += 1
    return reaped


def _is_own_lease(
    transaction: StudyTransaction, trial_id: int
) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return leases.c.trial_id == trial_id, leases.c.worker == transaction.identity.worker


def _fail_or_put_back(transaction: StudyTransaction, trial_id: int) -> None:
    """Counts a loss of a trial; puts it back, or fails it after too many losses."""
    connection = transaction.connection
    losses = connection.scalar(
        sa.update(leases)
        .where(leases.c.trial_id == trial_id)
        .values(worker=None, losses=leases.c.losses + 1)
        .returning(leases.c.losses)
    )
    if (losses or 0) < transaction.search.max_attempts:
        transaction.set_state(trial_id, TrialState.WAITING)
        return
    row = {"trial": trial_id, "key": OUTCOME, "value_json": json.dumps(LOST)}
    connection.execute(upsert_if_unfinished(connection.dialect.name, user_attributes, "key"), row)
    transaction.set_state(trial_id, TrialState.FAIL, datetime_complete=utc_now())
    _stop_if_many_are_lost(transaction)


def _stop_if_many_are_lost(transaction: StudyTransaction) -> None:
    """Stops the study at every ``STOP_AFTER_LOST`` lost trials.

    Lost trials do not count towards the budget, so on a machine that kills every worker the search
    would otherwise never end.
    """
    connection = transaction.connection
    query = (
        sa.select(sa.func.count())
        .select_from(user_attributes.join(trials))
        .where(trials.c.study_id == transaction.study_id, trials.c.state == TrialState.FAIL)
        .where(user_attributes.c.key == OUTCOME)
        .where(user_attributes.c.value_json == json.dumps(LOST))
    )
    lost = connection.scalar(query)
    if not lost or lost % STOP_AFTER_LOST:
        return
    message = (
        f"{lost} trials were given up because their workers kept dying (out of the "
        "machine's memory?): lower --workers, train.batch_size or the model's widths"
    )
    transaction.set_attribute(STOPPED, message)
