"""How a worker takes a trial, puts it back and ends it.

``claim`` and ``release`` run in a transaction that holds the study's lock, so a claim is made
completely or not at all, even if the process or its connection dies in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.config import StudySpec
from searchae.storage import finish_trial, trials, utc_now
from searchae.study import leases, pausing
from searchae.study.budget import NoTrial, TrialCounts, count_trials, why_no_trial, why_stopped
from searchae.study.early_end import end_early, is_stable
from searchae.study.foreign_trials import mark_invalid
from searchae.study.transaction import StudyTransaction


def claim(
    transaction: StudyTransaction,
    spec: StudySpec,
    *,
    trust_silence: bool,
    fitting: set[int],
    created: Callable[[], None],
    promotable: Sequence[int] = (),
    settle: bool = False,
) -> int | NoTrial:
    """Takes a trial if the study is not stopped and its budget and time allow one more.

    A trial that was put back comes before a paused one that may go on, and that before a new one.

    Args:
        transaction: A transaction that holds the study's lock.
        spec: The study's spec.
        trust_silence: See ``leases.reap``.
        fitting: See ``foreign_trials.mark_invalid``.
        created: Called before the trial is leased (for tests that fail at this point).
        promotable: The ids of the paused trials that may go on, the most promising first.
        settle: Whether to end the trials that are still paused if nothing else is left: the caller
            has found out, since ``NoTrial.SETTLE`` was returned, which may go on now, if any.

    Returns:
        The id of the trial, now RUNNING and leased to this process; or why there is none.
    """
    attributes, now_s = transaction.read_attributes(lock_study=True)
    if stopped := why_stopped(attributes):  # before reaping, which may store another reason
        return stopped
    leases.reap(transaction, trust_silence=trust_silence, claiming=True)
    by_state = count_trials(transaction)
    paused = pausing.count_paused(transaction) if spec.search.pauses else 0

    def read_counts() -> TrialCounts:
        return TrialCounts.of(
            {state: found.count for state, found in by_state.items()},
            attributes,
            default_budget=spec.search.trials,
            paused=paused,
        )

    counts = read_counts()
    refused = why_no_trial(counts, attributes, now_s)
    if refused in (NoTrial.DONE, NoTrial.WAIT) and mark_invalid(transaction, spec, fitting):
        attributes, now_s = transaction.read_attributes()
        counts = read_counts()
        refused = why_no_trial(counts, attributes, now_s)
    refused = refused or _ended_early(transaction, counts)
    if refused is not None:
        return refused
    resumed = None
    if counts.waiting:
        first = by_state[TrialState.WAITING].first_id
        trial_id = pausing.first_put_back(transaction) if paused else first
        first_start = sa.func.coalesce(trials.c.datetime_start, utc_now())
        transaction.set_state(trial_id, TrialState.RUNNING, datetime_start=first_start)
    elif (resumed := _resumed(transaction, promotable)) is not None:
        trial_id = resumed
    elif counts.finished + counts.running + counts.paused < counts.budget:
        trial_id = _create(transaction, number=sum(found.count for found in by_state.values()))
    elif counts.running:
        return NoTrial.WAIT
    elif not settle:
        return NoTrial.SETTLE
    else:
        pausing.end_all(transaction)
        return NoTrial.DONE
    created()
    leases.grant(transaction, trial_id, is_new=not counts.waiting and resumed is None)
    return trial_id


def _ended_early(transaction: StudyTransaction, counts: TrialCounts) -> NoTrial | None:
    """Ends a search that brings nothing better any more; returns None while it goes on."""
    if counts.waiting or not is_stable(transaction, counts):
        return None
    if counts.running:  # one of them may be better
        return NoTrial.WAIT
    ended = pausing.end_all(transaction) if counts.paused else []
    end_early(transaction, replace(counts, pruned=counts.pruned + len(ended)))
    return NoTrial.DONE


def release(transaction: StudyTransaction, trial_id: int) -> None:
    """Puts back a trial if this process still holds it. Takes the study's lock."""
    if leases.is_held(transaction, trial_id):
        leases.put_back(transaction, trial_id)


def finish(
    transaction: StudyTransaction,
    trial_id: int,
    state: TrialState,
    value: float | None,
    further: Sequence[float] = (),
) -> bool:
    """Ends a trial that this process holds and deletes its lease: both or neither.

    Args:
        transaction: A transaction; it need not hold the study's lock.
        trial_id: The trial.
        state: COMPLETE or PRUNED.
        value: Its PSNR in dB; None without one.
        further: The values of the study's further objectives, in order.

    Returns:
        Whether the trial has ended in this state; False if another worker has taken it over.
    """
    if not leases.drop(transaction, trial_id):
        # Called again after a broken connection: the first call may have ended the trial.
        query = sa.select(trials.c.state).where(trials.c.trial_id == trial_id)
        ended_as = transaction.connection.scalar(query)
        return ended_as == state and not leases.is_leased(transaction, trial_id)
    ended = finish_trial(transaction.connection, trial_id, state, value, further)
    if not ended:
        transaction.roll_back()
    return ended


def _resumed(transaction: StudyTransaction, promotable: Sequence[int]) -> int | None:
    """Takes up the first trial that is still paused; returns its id, or None without one."""
    return next((i for i in promotable if pausing.resume(transaction, i)), None)


def _create(transaction: StudyTransaction, *, number: int) -> int:
    row = {"number": number, "study_id": transaction.study_id, "state": TrialState.RUNNING}
    made = sa.insert(trials).values(datetime_start=utc_now(), **row)
    return int(transaction.connection.scalar(made.returning(trials.c.trial_id)))
