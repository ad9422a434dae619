"""How a trial is paused, taken up again, and ended if it is not.

Each function runs in a transaction that holds the study's lock, and belongs to ``claims``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.config import SearchSpec
from searchae.search import PAUSED
from searchae.storage import finish_trial, reports, trials, upsert, user_attributes
from searchae.study import leases
from searchae.study.attributes import PAUSED_BYTES
from searchae.study.transaction import StudyTransaction


@dataclass(frozen=True)
class PausedTrial:
    """A paused trial.

    Attributes:
        trial_id: Its id in the database.
        number: Its number.
        step: The step of its last report; 0 for none.
        psnr_db: The validation PSNR in dB that it reported; None if it is not a finite number.
        size: The bytes that its checkpoints take.
    """

    trial_id: int
    number: int
    step: int
    psnr_db: float | None
    size: int


def pause(transaction: StudyTransaction, trial_id: int, *, step: int, size: int) -> list[int]:
    """Pauses a trial if this process still holds it.

    Where more than ``search.max_paused`` are paused then, or their checkpoints take more than
    ``search.max_paused_gb``, the least promising ones are ended.

    Args:
        transaction: A transaction that holds the study's lock.
        trial_id: The trial.
        step: The step of the report after which it is paused.
        size: The bytes that its checkpoints take.

    Returns:
        The numbers of the trials that were ended as PRUNED: those of the lowest rung, and of
        these the ones with the lowest PSNR.
    """
    if not leases.is_held(transaction, trial_id):
        return []
    dialect = transaction.connection.dialect.name
    for key, value in ((PAUSED, step), (PAUSED_BYTES, size)):
        row = {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        transaction.connection.execute(upsert(dialect, user_attributes, ["trial_id", "key"], row))
    leases.put_back(transaction, trial_id)
    ended = _above_the_bounds(paused_trials(transaction), transaction.search)
    for trial in ended:
        _end(transaction, trial)
    return [trial.number for trial in ended]


def _above_the_bounds(found: Sequence[PausedTrial], search: SearchSpec) -> list[PausedTrial]:
    """Returns the paused trials that cannot be kept, the least promising first."""
    kept = sorted(found, key=lambda t: (t.step, t.psnr_db is not None, t.psnr_db or 0.0))
    ended = []
    most_bytes = search.max_paused_gb * 1e9
    while len(kept) > search.max_paused or sum(t.size for t in kept) > most_bytes:
        ended.append(kept.pop(0))
    return ended


def resume(transaction: StudyTransaction, trial_id: int) -> bool:
    """Sets a paused trial RUNNING; returns False if it is paused no longer."""
    connection = transaction.connection
    taken = connection.execute(
        sa.update(trials)
        .where(trials.c.trial_id == trial_id, trials.c.study_id == transaction.study_id)
        .where(trials.c.trial_id.in_(_paused_ids(transaction)))
        .values(state=TrialState.RUNNING)
    )
    if taken.rowcount != 1:
        return False
    connection.execute(
        sa.delete(user_attributes).where(
            user_attributes.c.trial_id == trial_id,
            user_attributes.c.key.in_((PAUSED, PAUSED_BYTES)),
        )
    )
    return True


def end_all(transaction: StudyTransaction) -> list[int]:
    """Ends every paused trial as PRUNED; returns their numbers."""
    found = paused_trials(transaction)
    for trial in found:
        _end(transaction, trial)
    return [trial.number for trial in found]


def paused_trials(transaction: StudyTransaction) -> Sequence[PausedTrial]:
    """Returns the paused trials."""
    last = (
        sa.select(reports.c.trial_id, sa.func.max(reports.c.step).label("step"))
        .where(reports.c.trial_id.in_(_paused_ids(transaction)))
        .group_by(reports.c.trial_id)
        .subquery()
    )
    size = user_attributes.alias()
    query = (
        sa.select(
            trials.c.trial_id,
            trials.c.number,
            last.c.step,
            reports.c.intermediate_value,
            size.c.value_json,
        )
        .outerjoin(last, last.c.trial_id == trials.c.trial_id)
        .outerjoin(
            reports, (reports.c.trial_id == trials.c.trial_id) & (reports.c.step == last.c.step)
        )
        .outerjoin(size, (size.c.trial_id == trials.c.trial_id) & (size.c.key == PAUSED_BYTES))
        .where(trials.c.trial_id.in_(_paused_ids(transaction)))
        .order_by(trials.c.number)
    )
    return [
        PausedTrial(trial_id, number, step or 0, value, json.loads(bytes_json or "0"))
        for trial_id, number, step, value, bytes_json in transaction.connection.execute(query)
    ]


def count_paused(transaction: StudyTransaction) -> int:
    """Returns the number of paused trials."""
    query = sa.select(sa.func.count()).select_from(_paused_ids(transaction).subquery())
    return int(transaction.connection.scalar(query) or 0)


def first_put_back(transaction: StudyTransaction) -> int:
    """Returns the lowest id of the trials that wait without being paused; there is one."""
    query = sa.select(sa.func.min(trials.c.trial_id)).where(
        trials.c.study_id == transaction.study_id,
        trials.c.state == TrialState.WAITING,
        trials.c.trial_id.not_in(_paused_ids(transaction)),
    )
    return int(transaction.connection.scalars(query).one())


def _paused_ids(transaction: StudyTransaction) -> sa.Select[tuple[int]]:
    return (
        sa.select(trials.c.trial_id)
        .join(user_attributes, user_attributes.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == transaction.study_id, trials.c.state == TrialState.WAITING)
        .where(user_attributes.c.key == PAUSED)
    )


def _end(transaction: StudyTransaction, trial: PausedTrial) -> None:
    transaction.set_state(trial.trial_id, TrialState.RUNNING)  # only such a trial can be finished
    finish_trial(transaction.connection, trial.trial_id, TrialState.PRUNED, trial.psnr_db)
    transaction.connection.execute(
        sa.delete(leases.leases).where(leases.leases.c.trial_id == trial.trial_id)
    )
