"""The operations through which processes share the work on one study.

A study's budget is the number of trials that end COMPLETE or PRUNED. Trials are claimed under one
lock per study (``claims``), each with a lease that its worker renews (``leases``). A lease that is
not renewed within the grace period, or whose process is seen to be gone, is reaped: the trial keeps
its number, parameters and reports, is put back as WAITING, and continues from its last checkpoint
on the next worker. So the budget is met exactly, and a trial whose worker died counts once.

If two workers believe that they hold one trial (one was suspended past the grace period and woke
up), only one can end it: the database lets a trial finish once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.errors import NoStudyError, StorageError
from searchae.storage import exclusive_lock, locked_transaction
from searchae.study import claims, foreign_trials, leases, stop_flags, worker_registry
from searchae.study.attributes import (
    ASKED_TRIALS,
    BUDGET,
    ERROR,
    OPEN_UNTIL,
    OUTCOME,
    QUARANTINED,
    STOPPED,
    TIME_LIMIT,
)
from searchae.study.budget import NoTrial, TrialCounts, count_trials, seconds_left
from searchae.study.process_identity import ProcessIdentity
from searchae.study.snapshot import StudySnapshot
from searchae.study.stored_study import StoredStudy
from searchae.study.transaction import StudyTransaction, metadata
from searchae.study.worker_registry import WorkerInfo

T = TypeVar("T")


@dataclass
class Coordinator:
    """Coordinates the work on one study, on behalf of one process.

    Unless a method says otherwise, it waits until the database answers, and may be repeated.

    Args:
        stored: The study.
        identity: The process that claims trials; of no importance to one that only reads.
        created: Called under the lock just before a claimed trial is leased (for tests that fail
            at this point).
    """

    stored: StoredStudy
    identity: ProcessIdentity = field(default_factory=ProcessIdentity.of_this_process)
    created: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._storage = self.stored.storage
        self._engine = self._storage.engine
        self._fitting: set[int] = set()
        self._storage.retried(self._create_tables)

    # -- the budget

    def set_budget(self, trials: int, *, asked: int | None = None) -> None:
        """Sets how many trials have to end COMPLETE or PRUNED.

        Args:
            trials: That number.
            asked: The number that somebody asked for by name; None to keep what is known of it.
        """
        if asked is not None:
            self.stored.study.set_user_attr(ASKED_TRIALS, asked)
        self.stored.study.set_user_attr(BUDGET, trials)

    def asked_trials(self) -> int | None:
        """Returns how many trials somebody has asked for by name; None if nobody has."""
        attributes, _ = self._attributes()
        return attributes.get(ASKED_TRIALS)

    def set_time_limit(self, seconds: float | None) -> None:
        """Ends the work of every worker this many seconds from now; None for never."""
        _, now_s = self._attributes()
        self.stored.study.set_user_attr(TIME_LIMIT, None if seconds is None else now_s + seconds)

    def keep_open(self, seconds: float) -> None:
        """Makes the workers of a list of trainings wait for more from this process; 0 ends this."""

        def update(transaction: StudyTransaction) -> None:
            attributes, now_s = transaction.read_attributes(lock_study=True)
            others = {
                process: until_s
                for process, until_s in attributes.get(OPEN_UNTIL, {}).items()
                if until_s > now_s and process != self.identity.worker
            }
            own = {self.identity.worker: now_s + seconds} if seconds else {}
            transaction.set_attribute(OPEN_UNTIL, others | own)

        self._run_locked(update)

    def is_open(self) -> bool:
        """Returns whether a process decides on more trainings of a list at present."""
        attributes, now_s = self._attributes()
        return any(until_s > now_s for until_s in attributes.get(OPEN_UNTIL, {}).values())

    def seconds_left(self) -> float | None:
        """Returns the seconds until the time limit, negative after it; None without one."""
        return seconds_left(*self._attributes())

    def counts(self) -> TrialCounts:
        """Counts the study's own trials by state."""

        def read(transaction: StudyTransaction) -> TrialCounts:
            attributes, _ = transaction.read_attributes()
            found = count_trials(transaction)
            by_state = {state: trials.count for state, trials in found.items()}
            return self._counts(by_state, attributes)

        return self._run(read)

    def snapshot(self) -> StudySnapshot:
        """Reads the study's trials, counts, workers and attributes, each of them once."""

        def read(
            transaction: StudyTransaction,
        ) -> tuple[dict[str, Any], float, list[WorkerInfo]]:
            return *transaction.read_attributes(), worker_registry.live_workers(transaction)

        attributes, now_s, alive = self._run(read)
        with self.existing():
            trials = self.stored.study.get_trials(deepcopy=False)
        return StudySnapshot(
            trials=trials,
            counts=self._counts(Counter(trial.state for trial in trials), attributes),
            workers=tuple(alive),
            stopped=stop_flags.stop_message(attributes),
            quarantined=stop_flags.quarantine_reasons(attributes),
            seconds_left=seconds_left(attributes, now_s),
        )

    @contextmanager
    def existing(self) -> Iterator[None]:
        """Turns an error about a row that is no longer there into one that says why.

        Raises:
            NoStudyError: The block met such an error, and the study has been deleted or renamed.
        """
        try:
            yield
        except NoStudyError:
            raise
        except (KeyError, StorageError):  # the second one as a row without a trial is refused
            self._attributes()  # raises if it has been
            raise

    # -- stops

    def quarantine(self, reason: str) -> None:
        """Notes that this worker leaves for good because its machine fails."""
        identity = self.identity
        text = f"{identity.host}, pid {identity.pid}: {reason}"
        self.stored.study.set_user_attr(QUARANTINED + identity.worker, text)

    def quarantined(self) -> tuple[str, ...]:
        """Returns why workers left for good since the last ``clear_stop``, a line each."""
        attributes, _ = self._attributes()
        return stop_flags.quarantine_reasons(attributes)

    def stop(self, message: str) -> None:
        """Gives out no more trials; ``message`` says why."""
        self.stored.study.set_user_attr(STOPPED, message)

    def clear_stop(self) -> None:
        """Gives out trials again after a stop, and forgets which workers were quarantined."""
        attributes, _ = self._attributes()
        for key in stop_flags.stop_keys(attributes):
            self.stored.study.set_user_attr(key, "")

    def stopped(self) -> str:
        """Returns why the study was stopped early; empty if it was not."""
        attributes, _ = self._attributes()
        return stop_flags.stop_message(attributes)

    # -- trials

    def claim(self, *, trust_silence: bool = True) -> int | NoTrial:
        """Takes a trial to work on, if the study is not stopped and its budget has one left.

        Args:
            trust_silence: See ``reap``.

        Returns:
            The id of the trial, now RUNNING and leased to this process; or why there is none.
        """

        def take(transaction: StudyTransaction) -> int | NoTrial:
            return claims.claim(
                transaction,
                self.stored.spec,
                trust_silence=trust_silence,
                fitting=self._fitting,
                created=self.created,
            )

        return self._run_locked(take)

    def mark_invalid(self) -> int:
        """Marks trials of other programs that do not fit into the study; returns how many."""
        return self._run_locked(
            lambda t: foreign_trials.mark_invalid(t, self.stored.spec, self._fitting)
        )

    def fail(self, trial_id: int, outcome: str, error: str) -> None:
        """Ends a trial that this process holds, outside the budget.

        Args:
            trial_id: The trial.
            outcome: Its attribute ``OUTCOME``.
            error: Its attribute ``ERROR``.
        """
        self._storage.set_trial_user_attr(trial_id, OUTCOME, outcome)
        self._storage.set_trial_user_attr(trial_id, ERROR, error)
        self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        self.drop_lease(trial_id)

    def holds(self, trial_id: int) -> bool:
        """Returns whether this process still has the lease of a trial."""
        return self._run(lambda transaction: leases.is_held(transaction, trial_id))

    def release(self, trial_id: int) -> None:
        """Puts back a trial for the next worker, if this process still holds it."""
        self._run_locked(lambda transaction: claims.release(transaction, trial_id))

    def finish(
        self,
        trial_id: int,
        state: TrialState,
        value: float | None,
        further: Sequence[float] = (),
    ) -> bool:
        """Ends a trial that this process holds and deletes its lease: both or neither.

        Args:
            trial_id: The trial.
            state: COMPLETE or PRUNED.
            value: Its PSNR in dB; None without one.
            further: The values of the study's further objectives, in order.

        Returns:
            Whether the trial has ended in this state; False if another worker has taken it over.
        """
        return self._run(
            lambda transaction: claims.finish(transaction, trial_id, state, value, further)
        )

    def drop_lease(self, trial_id: int) -> None:
        """Deletes this process's lease of a trial that has ended."""
        self._run(lambda transaction: leases.drop(transaction, trial_id))

    def reap(self, *, trust_silence: bool = True) -> int:
        """Puts back or gives up every trial whose worker is gone.

        Args:
            trust_silence: Treat workers as dead whose lease was not renewed within the grace
                period. After an outage of the database longer than that, the leases of live workers
                look the same: pass False until these have had time to renew them, to go only by
                processes that are seen to be gone.

        Returns:
            How many trials were put back or given up.
        """

        def reap(transaction: StudyTransaction) -> int:
            return leases.reap(transaction, trust_silence=trust_silence, claiming=False)

        return self._run_locked(reap)

    # -- workers

    def join(self, device: str) -> None:
        """Adds this process to the study's workers.

        Args:
            device: The device that it trains on, for people.
        """
        self._run(lambda transaction: worker_registry.register(transaction, device))

    def leave(self) -> None:
        """Removes this process from the study's workers."""
        self._run(worker_registry.unregister)

    def beat(self, trial_id: int | None, *, number: int | None, epoch: int | None) -> bool:
        """Records a heartbeat and renews the lease; does not wait for the database.

        Args:
            trial_id: The trial that this process holds, if any.
            number: The trial's number.
            epoch: The trial's last epoch.

        Returns:
            Whether the lease is still this process's; True without a trial.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: The database does not answer.
        """
        with self._engine.begin() as connection:
            transaction = self._transaction(connection)
            worker_registry.record_heartbeat(transaction, number=number, epoch=epoch)
            return trial_id is None or leases.renew(transaction, trial_id)

    def workers(self) -> list[WorkerInfo]:
        """Returns the workers heard of within the grace period, the longest registered first."""
        return self._run(worker_registry.live_workers)

    # -- transactions

    def _run(self, function: Callable[[StudyTransaction], T]) -> T:
        """Calls a function in a transaction; repeats it until the database answers."""

        def run() -> T:
            with self._engine.begin() as connection:
                return function(self._transaction(connection))

        result: T = self._storage.retried(run)
        return result

    def _run_locked(self, function: Callable[[StudyTransaction], T]) -> T:
        """Calls a function in a transaction that holds the study's lock; repeats it likewise."""

        def run() -> T:
            with locked_transaction(self._engine, self.stored.id) as connection:
                return function(self._transaction(connection))

        result: T = self._storage.retried(run)
        return result

    def _transaction(self, connection: sa.Connection) -> StudyTransaction:
        stored = self.stored
        return StudyTransaction(
            connection, stored.id, stored.spec.search, self.identity, stored.name, stored.data_hash
        )

    def _attributes(self) -> tuple[dict[str, Any], float]:
        return self._run(StudyTransaction.read_attributes)

    def _counts(self, by_state: dict[TrialState, int], attributes: dict[str, Any]) -> TrialCounts:
        return TrialCounts.of(by_state, attributes, default_budget=self.stored.spec.search.trials)

    def _create_tables(self) -> None:
        found = sa.inspect(self._engine).get_table_names()
        if set(metadata.tables) <= set(found):  # whoever only looks may have no right to write
            return
        with exclusive_lock(self._engine, 0):
            metadata.create_all(self._engine)
