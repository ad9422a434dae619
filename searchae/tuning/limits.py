"""The limits of a search: how many trials, and until when.

They belong to the study, and whoever runs ``tune`` on it shares them. What was asked for by name
stays until somebody asks for something else by name, so that a second ``tune`` without options
changes nothing for the first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from searchae.formatting import format_count, format_duration
from searchae.launch import Request
from searchae.study import Coordinator, StoredStudy, Summary

CLOCK_S = 5.0
"""Seconds by which the end of the time may seem to move between two readings of the clock."""


def agreed_trials(stored: StoredStudy | None, request: Request, note: Callable[[str], None]) -> int:
    """Returns how many trials a search is to have: those asked for now, else before, else the file.

    Args:
        stored: The study, if it exists.
        request: Says what is asked for now.
        note: Told if it is what was asked for before.
    """
    trials = request.resolved[1].search.trials
    before = None if stored is None else Coordinator(stored).asked_trials()
    if request.asks_for_trials or before is None or before == trials:
        return trials
    note(
        f"{format_count(before, 'trial')}, as asked for with --trials before (study file: "
        f"{trials}); --trials N changes it"
    )
    return before


def set_limits(coordinator: Coordinator, request: Request, note: Callable[[str], None]) -> None:
    """Sets a study's budget and its time limit.

    Args:
        coordinator: Of the study.
        request: Says what is asked for.
        note: Told of limits that were set before and stay.
    """
    trials = agreed_trials(coordinator.stored, request, note)
    done = coordinator.counts().finished
    if done > trials:
        note(f"{done} trials are done, more than the {trials} asked for")
    coordinator.set_budget(max(trials, done), asked=trials if request.asks_for_trials else None)
    set_time_limit(coordinator, request.max_hours, note)


def set_time_limit(
    coordinator: Coordinator, hours: float | None, note: Callable[[str], None]
) -> None:
    """Sets when the work on a study ends.

    Args:
        coordinator: Of the study.
        hours: Hours from now; None keeps a limit that is still to come and removes a past one.
        note: Told of a limit that is kept.
    """
    if hours is not None:
        coordinator.set_time_limit(hours * 3600)
        return
    left_s = coordinator.seconds_left()
    if left_s is not None and left_s > 0:
        note(
            f"work ends in {format_duration(left_s)}, as asked for with --max-hours before; "
            "--max-hours N changes it"
        )
    elif left_s is not None:
        coordinator.set_time_limit(None)


@dataclass
class LimitWatch:
    """Tells a terminal when another one has changed the study's limits.

    Args:
        note: Told of each change.
    """

    note: Callable[[str], None]
    _budget: int | None = None
    _ends_at: float = field(default=math.inf)

    def update(self, summary: Summary) -> None:
        """Compares the limits with those of the last call."""
        budget, left_s = summary.counts.budget, summary.seconds_left
        ends_at = math.inf if left_s is None else time.monotonic() + left_s
        if self._budget is not None:
            if budget != self._budget:
                text = (
                    f"the budget is {format_count(budget, 'trial')} now, no longer {self._budget}: "
                    "somebody has asked for it with --trials"
                )
                end = summary.early_end
                self.note(text if end is None else f"the search {end.text}")
            if not math.isclose(ends_at, self._ends_at, rel_tol=0, abs_tol=CLOCK_S):
                self.note(
                    "the time limit has been removed"
                    if left_s is None
                    else f"work ends in {format_duration(max(left_s, 0.0))}: somebody has asked "
                    "for it with --max-hours"
                )
        self._budget, self._ends_at = budget, ends_at
