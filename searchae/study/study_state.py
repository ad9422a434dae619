"""What a process reads and sets of one study: its budget, its limits, and whether it stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.errors import NoStudyError, StorageError
from searchae.search import is_paused
from searchae.storage import locked_transaction, reading_snapshot
from searchae.study import pausing, stop_flags, worker_registry
from searchae.study.attributes import (
    ASKED_TRIALS,
    BUDGET,
    OPEN_UNTIL,
    QUARANTINED,
    STOP_ASKED,
    STOPPED,
    TIME_LIMIT,
    TRAININGS_OF,
)
from searchae.study.budget import TrialCounts, count_trials, seconds_left
from searchae.study.process_identity import ProcessIdentity
from searchae.study.snapshot import StudySnapshot
from searchae.study.stored_study import StoredStudy
from searchae.study.transaction import StudyTransaction, create_tables
from searchae.study.worker_registry import WorkerInfo

T = TypeVar("T")


@dataclass
class StudyState:
    """The state of one study, as one process reads and sets it; see ``Coordinator``.

    Args:
        stored: The study.
        identity: The process that claims trials; of no importance to one that only reads.
    """

    stored: StoredStudy
    identity: ProcessIdentity = field(default_factory=ProcessIdentity.of_this_process)

    def __post_init__(self) -> None:
        self._storage = self.stored.storage
        self._engine = self._storage.engine
        self._storage.retried(lambda: create_tables(self._engine))

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
            is_asha = self.stored.spec.search.pauses
            paused = pausing.count_paused(transaction) if is_asha else 0
            return self._counts(by_state, attributes, paused)

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
            counts=self._counts(
                Counter(trial.state for trial in trials), attributes, sum(map(is_paused, trials))
            ),
            workers=tuple(alive),
            stopped=stop_flags.stop_message(attributes),
            quarantined=stop_flags.quarantine_reasons(attributes),
            seconds_left=seconds_left(attributes, now_s),
            trainings_of=str(attributes.get(TRAININGS_OF, "")),
            stop_asked=stop_flags.who_asked_to_stop(attributes),
            attributes=attributes,
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

    def ask_to_stop(self, who: str) -> None:
        """Has every worker leave after its epoch, and gives out no more trials.

        Args:
            who: Who asks for it, for people.
        """
        self.stored.study.set_user_attr(STOP_ASKED, who)

    def is_asked_to_stop(self) -> bool:
        """Returns whether somebody asked for a stop; does not wait for the database.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: The database does not answer.
            NoStudyError: The study has been deleted or renamed.
        """
        with reading_snapshot(self._engine) as connection:  # does not lock a SQLite file
            attributes, _ = self._transaction(connection).read_attributes()
        return bool(stop_flags.who_asked_to_stop(attributes))

    def clear_stop(self) -> None:
        """Gives out trials again after a stop, and forgets which workers were quarantined."""
        attributes, _ = self._attributes()
        for key in stop_flags.stop_keys(attributes):
            self.stored.study.set_user_attr(key, "")

    def stopped(self) -> str:
        """Returns which fault stopped the study; empty if none did."""
        attributes, _ = self._attributes()
        return stop_flags.stop_message(attributes)

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

    def _counts(
        self, by_state: dict[TrialState, int], attributes: dict[str, Any], paused: int
    ) -> TrialCounts:
        trials = self.stored.spec.search.trials
        return TrialCounts.of(by_state, attributes, default_budget=trials, paused=paused)
