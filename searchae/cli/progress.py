"""Shows the progress of a search: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import textwrap
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from searchae.cli.terminal import SafeConsole
from searchae.formatting import format_count, one_line
from searchae.study import best_text, progress_text, study_line, trial_line

if TYPE_CHECKING:
    from searchae.study import Summary, TrialRow, WorkerInfo

_LOGGER = logging.getLogger("searchae")
WATCH_S = 2.0
"""Seconds between two updates of ``status --watch``."""
SILENCE_S = 60.0
"""Seconds without a line after which plain output shows the progress."""
INDENT = 11
"""Indentation of the continuation lines of a trial, in columns."""
MAX_WORKERS = 16
"""Number of workers that the panel shows."""


class _PanelHandler(logging.Handler):
    """Prints log records above the panel; writing to stderr directly would garble it."""

    def __init__(self, console: SafeConsole) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        self._console.print(text)


class ProgressDisplay:
    """Shows one line per trial, and the progress. A context manager; implements ``Watcher``.

    Args:
        clock: Returns seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = SafeConsole(stderr=True)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._clock = clock
        self._last_line_at = clock()

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            self._live.start()
            self._handler = _PanelHandler(self._console)
            _LOGGER.addHandler(self._handler)
            _LOGGER.propagate = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live.is_started:
            _LOGGER.removeHandler(self._handler)
            _LOGGER.propagate = True
            self._live.update(Text(""), refresh=True)
            self._live.stop()

    def note(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text)

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """Prints a trial that has ended: one line, wrapped to the width of a terminal."""
        line = one_line(trial_line(row, best_db=best_db))
        if self._console.is_terminal:
            line = textwrap.fill(
                line,
                self._console.width,
                subsequent_indent=" " * INDENT,
                break_on_hyphens=False,
            )
        self._console.print(Text(line))
        self._last_line_at = self._clock()

    def progress(self, summary: Summary) -> None:
        """Updates the panel; elsewhere prints a line after ``SILENCE_S`` without one."""
        if self._live.is_started:
            self._live.update(study_panel(summary), refresh=True)
        elif self._clock() - self._last_line_at >= SILENCE_S:
            self.note(study_line(summary))
            self._last_line_at = self._clock()


def watch_search(summary: Callable[[], Summary]) -> Summary:
    """Shows the state of a study until it is over.

    Args:
        summary: Reads the state.

    Returns:
        The last state.
    """
    console = SafeConsole()
    shown = ""
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            now = summary()
            if console.is_terminal:
                live.update(study_panel(now), refresh=True)
            elif (line := study_line(now)) != shown:
                console.print(line)
                shown = line
            if is_over(now):
                live.update(Text(""))
                return now
            time.sleep(WATCH_S)


def is_over(summary: Summary) -> bool:
    """Returns whether the budget is spent, or no worker is alive and none is to come."""
    left = summary.seconds_left
    is_ended = (left is not None and left <= 0) or bool(summary.stop_asked)
    return summary.counts.finished >= summary.counts.budget or (is_ended and not summary.workers)


def study_panel(summary: Summary) -> RenderableType:
    """Returns the state of a study as a panel of a few lines."""
    c = summary.counts
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(1, c.budget), completed=c.finished, width=24)
    head.add_row(Text(one_line(summary.study), style="bold"), bar, _line(progress_text(summary)))
    lines: list[RenderableType] = [head]
    if best := best_text(summary):
        lines.append(Text(best, overflow="ellipsis", no_wrap=True))
    if summary.front:
        lines.append(_line(f"front: {format_count(len(summary.front), 'trial')}"))
    if summary.workers:
        lines.append(_worker_table(summary))
    if summary.early_end is not None:
        lines.append(_line(summary.early_end.text))
    lines += [_line(f"warning: {w}") for w in summary.warnings]
    return Group(*lines)


def _line(text: str) -> Text:
    return Text(one_line(text))


def _worker_table(summary: Summary) -> Table:
    table = Table.grid(padding=(0, 2))
    # More recent than the epochs in the workers' heartbeats, which come every half minute.
    running = {row.worker: row for row in summary.rows if row.state == "running"}
    for worker in summary.workers[:MAX_WORKERS]:
        table.add_row("", *map(_line, _worker_cells(worker, running.get(worker.worker))))
    more = len(summary.workers) - MAX_WORKERS
    if more > 0:
        table.add_row("", _line(f"and {more} more"))
    return table


def _worker_cells(worker: WorkerInfo, row: TrialRow | None) -> tuple[str, ...]:
    who = f"{worker.host} {worker.pid}"
    if row is None:
        return who, worker.device, "idle", "", ""
    psnr = "" if row.psnr_db is None else f"{row.psnr_db:.2f} dB"
    return who, worker.device, f"{row.noun} {row.number}", f"epoch {int(row.epochs) + 1}", psnr
