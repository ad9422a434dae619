"""Shows the progress of a search, or of trainings, as plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable

from searchae.study import Summary, TrialRow, study_line, trial_line

SILENCE_S = 60.0
"""Seconds without a line after which the progress is shown."""


class PlainLines:
    """Shows a line per trial, and the progress where none has ended for a while.

    Implements ``Watcher``.

    Args:
        show: Shows a line.
        clock: Returns seconds.
    """

    def __init__(
        self, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._show, self._clock = show, clock
        self._last_line_at = clock()

    def note(self, text: str) -> None:
        """Shows a line."""
        self._show(text)

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """Shows a trial that has ended."""
        self._show_now(trial_line(row, best_db=best_db))

    def progress(self, summary: Summary) -> None:
        """Shows the progress after ``SILENCE_S`` without a line."""
        if self._clock() - self._last_line_at >= SILENCE_S:
            self._show_now(study_line(summary))

    def _show_now(self, line: str) -> None:
        self._show(line)
        self._last_line_at = self._clock()


class NoLines:
    """Shows nothing. Implements ``Watcher``."""

    def note(self, text: str) -> None:
        """Does nothing."""

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """Does nothing."""

    def progress(self, summary: Summary) -> None:
        """Does nothing."""
