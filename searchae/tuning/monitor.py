"""Follows the workers of a running search until they are done, and reports the progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from searchae.errors import SearchaeError, StopAskedError, StudyStoppedError, UserError
from searchae.launch import Supervisor, last_lines
from searchae.study import (
    Coordinator,
    StoredStudy,
    Summary,
    TrialRow,
    ended_numbers,
    summarize,
)
from searchae.tuning.limits import LimitWatch

POLL_S = 1.0
"""Seconds between two reads of the study."""
LAST_POLL_S = 0.25
"""The same while the last trial runs."""
MAX_POLL_SHARE = 0.05
"""Share of a core that reading the study may take; workers need the rest."""
LONGEST_POLL_S = 5.0
"""The longest time between two reads, whatever they cost: in between no dead worker is replaced."""
EXIT_S = 3.0
"""Seconds that workers get to exit by themselves once the budget is spent."""
MARKED_GAIN_DB = 0.05
"""Gain over the baseline from which the best trial is marked."""


class Watcher(Protocol):
    """Shows the progress of a search to the user."""

    def note(self, text: str) -> None:
        """Shows a line."""

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """Shows a trial that has ended."""

    def progress(self, summary: Summary) -> None:
        """Shows the state of the study."""


class StopRequest(threading.Event):
    """A request to stop, which is obeyed between two database calls.

    An exception inside a database call would leave a transaction open, which this process itself
    would then wait for.

    Attributes:
        is_polled: Whether the event is being checked; if not, a signal handler has to raise.
    """

    is_polled = False


class EndedTrials:
    """Shows each trial that ends from the first look on, once.

    Args:
        coordinator: Of the study.
        watcher: Gets the trials.
    """

    def __init__(self, coordinator: Coordinator, watcher: Watcher) -> None:
        self._coordinator, self._watcher = coordinator, watcher
        self._shown: set[int] | None = None

    def begin(self) -> None:
        """Takes the trials that have ended by now as shown."""
        self._shown = ended_numbers(self._coordinator.stored)

    def show(self, summary: Summary) -> None:
        """Shows what has ended since; nothing before ``begin``."""
        for row in _ended(summary):
            if self._shown is not None and row.number not in self._shown:
                self._shown.add(row.number)
                self._watcher.trial(row, best_db=_best_to_mark(summary))

    def show_rest(self) -> None:
        """Looks once more, for trials that ended while the workers were stopped."""
        if self._shown is not None:
            self.show(summarize(self._coordinator.stored, self._coordinator))


def follow_workers(
    stored: StoredStudy,
    coordinator: Coordinator,
    supervisor: Supervisor,
    watcher: Watcher,
    ended: EndedTrials,
    stop: StopRequest,
    add_work: Callable[[], bool] | None = None,
) -> None:
    """Starts the workers and returns when the budget is spent or the time is up.

    Args:
        stored: The study.
        coordinator: Its budget and claims.
        supervisor: Restarts the workers.
        watcher: Gets the progress.
        ended: Shows each trial that ends.
        stop: Checked between two reads of the study.
        add_work: Called before each read; may raise the budget. Returns whether it may do so again
            when more trials have ended. None for a search, whose budget only somebody changes.

    Raises:
        KeyboardInterrupt: ``stop`` was set.
        StudyStoppedError: A trial met a bug.
        StopAskedError: Somebody asked for a stop; the workers have put their trials back.
        SearchaeError: No worker is left although there is work.
    """
    limits = LimitWatch(watcher.note)
    ended.begin()
    supervisor.start()  # before the trials are read: 20,000 take seconds
    alive, is_time_up, is_done, asked = True, False, False, ""
    while alive:
        alive = supervisor.poll()
        more = add_work is not None and add_work()
        began_s = time.thread_time()  # work only: to wait for the database costs no core
        summary = summarize(stored, coordinator)
        worked_s = time.thread_time() - began_s
        ended.show(summary)
        watcher.progress(summary)
        if add_work is None:
            limits.update(summary)
        is_time_up |= summary.seconds_left is not None and summary.seconds_left <= 0
        counts = summary.counts
        is_local = supervisor.launcher.is_local
        # On a cluster, workers that are left still wait for a node or exit within a second.
        is_done = counts.finished >= counts.budget and not more
        if is_done and coordinator.mark_invalid():
            continue
        if summary.stop_asked and not asked:
            watcher.note(f"{summary.stop_asked} asked for a stop: the workers end their epochs ...")
        # Remembered: another ``tune`` forgets it when it begins.
        asked = summary.stop_asked or asked
        if (is_done and not (is_local and counts.running)) or (asked and not counts.running):
            _wait_for_exits(supervisor, EXIT_S if is_local else 0.0)
            break
        pause_s = POLL_S if counts.budget - counts.finished > 1 else LAST_POLL_S
        if alive and stop.wait(min(max(pause_s, worked_s / MAX_POLL_SHARE), LONGEST_POLL_S)):
            raise KeyboardInterrupt
    if asked and not is_done:
        raise _stop_error(coordinator, asked)
    _check_end(coordinator, supervisor, watcher, is_time_up=is_time_up)


def _wait_for_exits(supervisor: Supervisor, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while supervisor.launcher.alive() and time.monotonic() < deadline:
        time.sleep(0.05)


def _stop_error(coordinator: Coordinator, who: str) -> SearchaeError:
    """Returns the error of a study whose work somebody has ended, or that of a bug meanwhile."""
    end = coordinator.snapshot()
    if end.stopped:
        return StudyStoppedError(*end.stopped.splitlines())
    name, counts = coordinator.stored.name, end.counts
    return StopAskedError(
        f"study {name!r} was stopped by {who} (searchae stop): {counts.finished} of "
        f"{counts.budget} {end.noun}s are done; run the same command again to go on"
    )


def _check_end(
    coordinator: Coordinator, supervisor: Supervisor, watcher: Watcher, *, is_time_up: bool
) -> None:
    """Raises an error if the search ended early for another reason than the time limit.

    Args:
        coordinator: Of the study.
        supervisor: Knows how the workers ended.
        watcher: Told that the time is up.
        is_time_up: Whether it was seen to be; another ``tune`` may have removed the limit since.
    """
    end = coordinator.snapshot()
    if end.stopped:
        raise StudyStoppedError(*end.stopped.splitlines())
    is_time_up |= end.seconds_left is not None and end.seconds_left <= 0
    if is_time_up:
        watcher.note(
            f"the time is up: {end.counts.finished} of {end.counts.budget} {end.noun}s are done; "
            "the rest is kept for another run"
        )
    elif end.counts.finished < end.counts.budget:
        raise _no_workers_error(supervisor)


def _best_to_mark(summary: Summary) -> float | None:
    """Returns the best PSNR so far, in dB, once it exceeds that of the mean training image."""
    best = summary.best
    if best is None or best.psnr_db is None:
        return None
    return best.psnr_db if best.psnr_db >= summary.baseline_db + MARKED_GAIN_DB else None


def _ended(summary: Summary) -> list[TrialRow]:
    return [r for r in summary.rows if r.state in ("complete", "pruned", "failed")]


def _no_workers_error(supervisor: Supervisor) -> SearchaeError:
    """Returns the error that says why no worker is left although there is work."""
    if not supervisor.given_up:
        return SearchaeError("the workers left before the budget was spent; run it again")
    last = supervisor.given_up[-1]
    tail = (f"  {line}" for line in last_lines(last.job.log, 15))
    kind = UserError if last.code == 2 else SearchaeError
    return kind(
        f"every worker died; the last one with exit code {last.code}. Its log, "
        f"{last.job.log}, ends:",
        *tail,
    )
