"""Shows the progress of a search, or of trainings, in the output of a notebook's cell.

The output is replaced in place by IPython's display messages, which every notebook understands:
there is nothing to install, and a notebook that is run without a browser keeps the last state.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from searchae.formatting import html_text, one_line
from searchae.study import Summary, TrialRow, best_text, progress_text, trial_line

LAST_TRIALS = 5
"""How many of the trials that ended last are shown."""
LAST_NOTES = 12
"""How many of the last lines for the user are shown."""

_FONT = "font: 0.9em/1.5 system-ui, sans-serif; color: inherit"
_LINES = (
    "margin: 0.3em 0 0; padding: 0; background: none; color: inherit; overflow-x: auto; "
    "white-space: pre; "
    "font: 0.85em/1.5 ui-monospace, Menlo, Consolas, monospace"
)


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class NotebookProgress:
    """Shows a bar, the best trial, and the last trials and lines. Implements ``Watcher``.

    Args:
        epochs: Of a list of trainings: the most that each can have; the bar then shows the epochs.
    """

    def __init__(self, epochs: int | None = None) -> None:
        self._epochs = epochs
        self._summary: Summary | None = None
        self._trials: deque[str] = deque(maxlen=LAST_TRIALS)
        self._notes: deque[str] = deque(maxlen=LAST_NOTES)
        self._handle: Any = None

    def note(self, text: str) -> None:
        """Shows a line."""
        self._notes.append(text)
        self._show()

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """Shows a trial that has ended."""
        self._trials.append(trial_line(row, best_db=best_db))
        self._show()

    def progress(self, summary: Summary) -> None:
        """Shows how far the study is."""
        self._summary = summary
        self._show()

    def _show(self) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}

    def text(self) -> str:
        """Returns what is shown, as lines of text."""
        return "\n".join(map(one_line, (*self._notes, *self._trials, *self._state())))

    def html(self) -> str:
        """Returns what is shown as HTML, for light and dark notebooks alike."""
        state = self._state()
        parts = []
        if self._summary is not None:
            done, of = self._done(self._summary)
            share = f'value="{done if of else 1}" max="{of or 1}"'
            bar = f'<progress {share} style="width: 16em"></progress>'
            parts.append(
                f"<div><b>{html_text(self._summary.study)}</b> {bar} {html_text(state[0])}</div>"
            )
            parts += [f"<div>{html_text(line)}</div>" for line in state[1:]]
        for lines in (self._trials, self._notes):
            if lines:
                shown = "\n".join(map(html_text, lines))
                parts.append(f'<pre style="{_LINES}">{shown}</pre>')
        return f'<div style="{_FONT}">{"".join(parts)}</div>'

    def _state(self) -> list[str]:
        summary = self._summary
        if summary is None:
            return []
        lines = [progress_text(summary)]
        done, of = self._done(summary)
        if self._epochs is not None and of:
            lines = [f"{done} of at most {of} epochs"]
            lines += [
                f"seed {row.seed}: epoch {row.epochs:g}, validation {row.psnr_db:.2f} dB"
                for row in summary.rows
                if row.state == "running" and row.psnr_db is not None
            ]
        best = "" if summary.trainings_of else best_text(summary)
        lines += [best] if best else []
        return lines + [f"warning: {text}" for text in summary.warnings]

    def _done(self, summary: Summary) -> tuple[int, int]:
        """Returns how much is done, and of how much; twice 0 if there is nothing to do."""
        if self._epochs is None:
            return summary.counts.finished, summary.counts.budget
        rows = [row for row in summary.rows if row.state in ("running", "waiting")]
        return int(sum(row.epochs for row in rows)), len(rows) * self._epochs
