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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from searchae.study import claims, foreign_trials, leases, pausing, worker_registry
from searchae.study.attributes import ERROR, OUTCOME
from searchae.study.budget import NoTrial
from searchae.study.study_state import StudyState
from searchae.study.transaction import StudyTransaction
from searchae.study.worker_registry import WorkerInfo


@dataclass
class Coordinator(StudyState):
    """Coordinates the work on one study, on behalf of one process.

    Unless a method says otherwise, it waits until the database answers, and may be repeated.

    Args:
        stored: The study.
        identity: The process that claims trials; of no importance to one that only reads.
        created: Called under the lock just before a claimed trial is leased (for tests that fail
            at this point).
    """

    created: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fitting: set[int] = set()

    # -- trials

    def claim(
        self, *, trust_silence: bool = True, promotable: Sequence[int] = (), settle: bool = False
    ) -> int | NoTrial:
        """Takes a trial to work on, if the study is not stopped and its budget has one left.

        Args:
            trust_silence: See ``reap``.
            promotable: See ``claims.claim``.
            settle: The same.

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
                promotable=promotable,
                settle=settle,
            )

        return self._run_locked(take)

    def pause(self, trial_id: int, *, step: int, size: int = 0) -> list[int]:
        """Pauses a trial after a report, if this process still holds it; see ``pausing.pause``."""
        return self._run_locked(
            lambda transaction: pausing.pause(transaction, trial_id, step=step, size=size)
        )

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
