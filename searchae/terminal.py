"""What a person at a terminal sees: results on stdout, progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

if TYPE_CHECKING:
    from searchae.report import Summary, TrialRow
    from searchae.spec import StudySpec
    from searchae.tune import Plan

WATCH_S = 2.0


def note(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Follows a search: a line a trial; on a terminal also a bar. Use it in a ``with`` block."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[more]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False)

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """One line for a trial that has ended."""
        self._console.print(trial_line(row, best_db=best_db), markup=False)

    def progress(self, summary: Summary) -> None:
        """Moves the bar."""
        counts = summary.counts
        if self._task is None:
            self._task = self._bar.add_task(summary.study, total=counts.budget, more="")
        best = f"best {summary.best.psnr_db:.2f} dB" if summary.best else ""
        more = f"{counts.running} running, {summary.epochs_saved} epochs saved  {best}"
        self._bar.update(self._task, completed=counts.finished, total=counts.budget, more=more)


def trial_line(row: TrialRow, *, best_db: float | None) -> str:
    """A trial in one line: ``trial 7  complete  21.34 dB  20 epochs  3 s  relu adam ...``."""
    state = row.outcome or row.state
    value = "    -   " if row.psnr_db is None else f"{row.psnr_db:5.2f} dB"
    epochs = f"{row.epochs:3d} epochs"
    took = "" if row.seconds is None else f"{row.seconds:5.1f} s"
    is_best = best_db is not None and row.psnr_db == best_db and row.state == "complete"
    mark = "  <- best" if is_best and not row.outcome else ""
    return (
        f"trial {row.number:3d}  {state:9s} {value}  {epochs} {took}  {_params(row.params)}{mark}"
    )


def print_summary(summary: Summary, *, workers: bool = False) -> None:
    """A study's standing."""
    out = Console(highlight=False, soft_wrap=True)
    c = summary.counts
    out.print(f"study      {summary.study}  ({summary.storage})", markup=False)
    extra = [f"{n} {word}" for word, n in summary.outcomes.items()]
    shown = [
        f"{n} {word}"
        for word, n in (
            ("complete", c.complete),
            ("pruned", c.pruned),
            ("failed", c.failed),
            ("running", c.running),
            ("waiting", c.waiting),
        )
        if n or word in ("complete", "pruned")
    ]
    note_bad = f"  (among them {', '.join(extra)})" if extra else ""
    out.print(f"trials     {c.finished} of {c.budget}: {', '.join(shown)}{note_bad}")
    share = f" ({summary.epochs_saved / summary.epochs_full:.0%})" if summary.epochs_full else ""
    out.print(
        f"epochs     {summary.epochs_run} run, {summary.epochs_saved} of "
        f"{summary.epochs_full} saved by pruning and plateaus{share}"
    )
    out.print(f"wall time  {_duration(summary.wall_s)}")
    if summary.seconds_left is not None and c.finished < c.budget:
        left = summary.seconds_left
        text = f"{_duration(left)} left of --max-hours" if left > 0 else "--max-hours is over"
        out.print(f"time       {text}")
    out.print(f"baseline   {summary.baseline_db:.2f} dB  (the mean training image for every image)")
    if summary.best is not None and summary.best.psnr_db is not None:
        gain = summary.best.psnr_db - summary.baseline_db
        out.print(
            f"best       {summary.best.psnr_db:.2f} dB, {gain:+.2f} over the baseline: "
            f"trial {summary.best.number}, {_params(summary.best.params)}",
            markup=False,
        )
    if workers:
        _print_workers(out, summary)
    for warning in summary.warnings:
        out.print(f"warning    {warning}", markup=False)


def _print_workers(out: Console, summary: Summary) -> None:
    out.print(f"workers    {len(summary.workers)} alive")
    for w in summary.workers:
        doing = "idle" if w.trial is None else f"trial {w.trial}, epoch {w.epoch or 0} done"
        out.print(
            f"  {w.host} pid {w.pid} on {w.device}: {doing}; up {_duration(w.age_s)}, "
            f"heard of {w.silent_s:.0f} s ago",
            markup=False,
        )


def watch(summary: Callable[[], Summary]) -> None:
    """Prints the standing again and again until the budget is spent."""
    console = Console(highlight=False)
    while True:
        now = summary()
        if console.is_terminal:
            console.clear()
        print_summary(now, workers=True)
        over = now.seconds_left is not None and now.seconds_left <= 0 and not now.workers
        if now.counts.finished >= now.counts.budget or over:
            return
        time.sleep(WATCH_S)


def print_best(row: TrialRow, spec: StudySpec) -> None:
    """The best trial, its parameters a line each."""
    print(f"trial {row.number}: {row.psnr_db:.3f} dB on the validation split, {row.epochs} epochs")
    for name, value in row.params.items():
        print(f"  {name:18s} {_value(value)}")


def print_counts(counts: Mapping[str, int]) -> None:
    """What a worker did."""
    print(", ".join(f"{n} {word.replace('_', ' ')}" for word, n in counts.items()))


def print_studies(files: Mapping[str, Path], stored: Sequence[str]) -> None:
    """Study files and stored studies."""
    import tomllib

    print("study files (searchae tune --study NAME):")
    for name, path in files.items():
        try:
            description = tomllib.loads(path.read_text(encoding="utf-8")).get("description", "")
        except (OSError, ValueError):  # ValueError: neither TOML nor UTF-8
            description = f"(cannot be read: {path})"
        print(f"  {name:14s} {description}")
    print("in the storage (searchae status --study NAME):")
    print("\n".join(f"  {name}" for name in stored) or "  none yet")


def print_splits(document: Mapping[str, Any]) -> None:
    """A data set's splits."""
    for key, value in document.items():
        print(f"{key:14s} {value}")


def plan_document(plan: Plan) -> dict[str, Any]:
    """A dry run as JSON."""
    document = asdict(plan)
    document["spec"] = plan.spec.document()
    document["space"] = {p.name: p.document() for p in plan.spec.space}
    return document


def print_plan(plan: Plan) -> None:
    """A dry run as text."""
    spec = plan.spec
    out = Console(highlight=False, soft_wrap=True)
    out.print(f"study      {plan.name}: {spec.description}", markup=False)
    for key in ("train", "validation", "test"):
        out.print(f"{key:10s} {plan.splits[key]} images")
    out.print(f"data       {spec.data.name}, hash {plan.splits['hash'][:12]}")
    low, high = plan.parameters
    size = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    out.print(f"net        {spec.fixed['model'].get('kind', 'searched')}, {size} parameters")
    table = Table("searched", "range", box=None, pad_edge=False)
    for p in spec.space:
        table.add_row(p.name, _range(p.document()))
    out.print(table if spec.space else "searched   nothing: every trial would be the same")
    search = spec.search
    out.print(
        f"search     {search.trials} trials, {search.sampler}, {search.pruner}, seed {spec.seed}"
    )
    out.print(f"runs on    {plan.device}, {plan.workers} workers of {plan.threads} threads")
    out.print(f"baseline   {plan.baseline_db:.2f} dB")
    out.print(
        f"time       {plan.step_s * 1e3:.1f} ms a step, about {_duration(plan.epoch_s)} an epoch, "
        f"{_duration(plan.epoch_s * spec.epochs)} a full training of {spec.epochs} epochs"
    )
    whole = plan.epoch_s * spec.epochs * search.trials / plan.workers
    out.print(f"           at most {_duration(whole)} in all, less what pruning saves")
    out.print("Nothing was trained; leave out --dry-run to start.")


def _range(document: Mapping[str, Any]) -> str:
    if "choices" in document:
        return ", ".join(str(_value(c)) for c in document["choices"])
    scale = " (log)" if document.get("log") else ""
    return f"{document['low']:g} to {document['high']:g}{scale}"


def _params(params: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in params.items())


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
