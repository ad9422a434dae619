"""A study's progress and its trials, each as one line of text."""

from __future__ import annotations

from collections import Counter

from searchae.config import objective_texts
from searchae.formatting import (
    format_assignments,
    format_count,
    format_duration,
    format_gain,
    format_number,
)
from searchae.study.foreign_trials import INVALID
from searchae.study.summary import Summary, TrialRow

OUTCOME_TEXTS = {
    "diverged": "its loss or weights became infinite",
    "dead": "its net gave the same picture for every image and could no longer learn",
    "out-of-memory": "it did not fit into the device's memory",
    "lost": "its workers were lost, time and again",
    "bug": "its training met a bug",
}
"""What each outcome of a trial that ended badly means, said of the trial."""


def study_line(summary: Summary) -> str:
    """Returns the state of a study as one line."""
    best = summary.best
    found = f", best {best.psnr_db:.2f} dB (trial {best.number})" if best else ""
    workers = format_count(len(summary.workers), "worker")
    return f"{summary.study}: {progress_text(summary)}{found}, {workers}"


def progress_text(summary: Summary) -> str:
    """Returns how many trials are done, and how long the rest will take."""
    c = summary.counts
    parts = [
        f"{c.finished} of {c.budget} {summary.noun}s{' listed' if summary.trainings_of else ''}",
        f"{c.running} running",
        f"{c.pruned} pruned",
    ]
    if c.paused:
        parts.append(f"{c.paused} paused")
    if c.waiting:
        parts.append(f"{c.waiting} waiting")
    if summary.epochs_full and not summary.trainings_of:
        parts.append(f"{summary.epochs_saved / summary.epochs_full:.0%} of the epochs saved")
    if summary.to_go_s is not None:
        parts.append(f"about {format_duration(summary.to_go_s)} to go")
    if summary.seconds_left is not None:
        parts.append(f"{format_duration(max(0.0, summary.seconds_left))} of --max-hours left")
    return ", ".join(parts)


def bad_end_lines(summary: Summary) -> list[str]:
    """Returns how trials ended badly: a line for each state that these trials have.

    Their number is part of the state's, so a line begins with that one.
    """
    c, lines = summary.counts, []
    foreign = sum(r.state == "failed" and r.outcome == INVALID for r in summary.rows)
    for state, total in (("complete", c.complete), ("failed", c.failed - foreign)):
        bad = Counter(r.outcome for r in summary.rows if r.state == state and r.outcome)
        del bad[INVALID]
        if bad:
            ends = [
                f"{n} {outcome} ({OUTCOME_TEXTS.get(outcome, 'without a result')})"
                for outcome, n in bad.items()
            ]
            lines.append(f"of the {total} {state}: {', '.join(ends)}")
    return lines


def best_text(summary: Summary) -> str:
    """Returns the best trial as one line; empty without one."""
    best = summary.best
    if best is None or best.psnr_db is None:
        return ""
    gain = format_gain(best.psnr_db, summary.baseline_db)
    found = f"best {best.psnr_db:.2f} dB, {gain}, trial {best.number}: "
    return found + format_assignments(best.params)


def trial_line(row: TrialRow, *, best_db: float | None) -> str:
    """Returns a trial as one line: ``trial 7  complete  21.34 dB  20 epochs  3 s  relu adam ...``.

    One of a list of trainings is called a training, with what it is for: ``tuning``, to find a
    choice's learning rate, or to be ``measured``.

    Args:
        row: The trial.
        best_db: PSNR of the best trial, in dB, which gets a mark; None for no mark.
    """
    state = row.outcome or row.state
    value = "    -   " if row.psnr_db is None else f"{row.psnr_db:5.2f} dB"
    epochs = f"{format_number(row.epochs):>3} epoch{' ' if row.epochs == 1 else 's'}"
    took = "" if row.seconds is None else f"{row.seconds:5.1f} s"
    is_best = best_db is not None and row.psnr_db == best_db and row.state == "complete"
    mark = "  <- best" if is_best and not row.outcome else ""
    params = format_assignments(row.params)
    if row.values and not row.outcome:
        params = f"{', '.join(objective_texts(row.values)[1:])}  {params}"
    if row.seed is not None:
        params += f" seed={row.seed} ({'measured' if row.is_measured else 'tuning'})"
    return f"{row.noun} {row.number:3d}  {state:9s} {value}  {epochs} {took}  {params}{mark}"
