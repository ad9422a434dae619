"""Prints studies, trials, plans and data sets as text: results on stdout, notes on stderr."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from searchae.cli.options import DEFAULT_STORAGE
from searchae.cli.terminal import SafeConsole, print_line
from searchae.cli.typed_options import MASK, has_password
from searchae.config import FACTORY_VARIABLE, OBJECTIVES, below_here, objective_texts, read_toml
from searchae.errors import SpecError
from searchae.files import ArtifactPath
from searchae.formatting import (
    format_assignments,
    format_count,
    format_duration,
    format_gain,
    format_list,
    format_number,
    format_value,
    one_line,
)

if TYPE_CHECKING:
    from searchae.config import StudySpec
    from searchae.study import StudyOverview, Summary, TrialRow
    from searchae.tuning import DryRun


UNLIKE = 1.3
"""Steps of regularizers are shown one by one where the slowest takes this many times the fastest's
time."""
_COUNT_LABELS = {
    "taken_away": "taken over by another worker",
    "put_back": "left for another worker to continue",
}


def print_note(text: str) -> None:
    """Prints a line on stderr."""
    print_line(text, file=sys.stderr)


def print_summary(summary: Summary, *, workers: bool = False) -> None:
    """Prints the state of a study.

    Args:
        summary: The state.
        workers: Whether to list the workers.
    """
    out = SafeConsole()
    c = summary.counts
    out.print(f"study      {summary.study}  ({summary.storage})")
    if summary.trainings_of:
        out.print(f"lists      trainings of study {summary.trainings_of}, by compare and train")
    _print_trials(out, summary)
    if summary.refused is not None:
        nets = format_count(summary.refused, "net")
        out.print(f"refused    {nets} above search.max_parameters, before training")
    share = f" ({summary.epochs_saved / summary.epochs_full:.0%})" if summary.epochs_full else ""
    saved = (
        f", {format_number(summary.epochs_saved)} of {summary.epochs_full} saved by stopping "
        f"trials early{share}"
    )
    again = summary.epochs_repeated
    repeated = f", {again} of them trained again after a loss" if again else ""
    run = f"{format_number(summary.epochs_run)} run"
    unfinished = summary.epochs_run - (summary.epochs_full - summary.epochs_saved)
    if unfinished > 0 and c.finished:
        run += f" ({format_number(unfinished)} of them in trials that have not ended)"
    out.print(f"epochs     {run}{repeated}{saved if summary.epochs_full else ''}")
    # The times of trials that were put back are known once they have ended.
    is_known = summary.wall_s or not summary.epochs_run
    wall = format_duration(summary.wall_s) if is_known else "not known until a trial has ended"
    out.print(f"wall time  {wall}")
    if summary.seconds_left is not None and c.finished < c.budget:
        left = summary.seconds_left
        text = f"{format_duration(left)} left of --max-hours" if left > 0 else "--max-hours is over"
        out.print(f"time       {text}")
    out.print(f"baseline   {summary.baseline_db:.2f} dB  (the mean training image for every image)")
    _print_findings(out, summary)
    if summary.early_end is not None:
        out.print(f"ended      {summary.early_end.text.removeprefix('ended ')}")
    if workers:
        _print_workers(out, summary)
    for warning in summary.warnings:
        out.print(f"warning    {warning}")


def _print_findings(out: SafeConsole, summary: Summary) -> None:
    """Prints what the search found, and what it has not tried."""
    c = summary.counts
    if summary.best is not None and summary.best.psnr_db is not None:
        best_db = summary.best.psnr_db
        out.print(
            f"best       {best_db:.2f} dB, {format_gain(best_db, summary.baseline_db)}: "
            f"trial {summary.best.number}, {format_assignments(summary.best.params)}",
        )
    if summary.gain_db is not None:
        out.print(f"gain       {_gain_over_first(summary)}", markup=False)
    if summary.front:
        out.print(f"front      {front_line(summary)}")
    if summary.untried and (c.finished >= c.budget or summary.early_end is not None):
        out.print(f"not tried  {_untried_text(summary)}")


def _print_trials(out: SafeConsole, summary: Summary) -> None:
    """Prints how many trials there are by state, and how many of these ended badly."""
    from searchae.study import bad_end_lines

    c = summary.counts
    invalid = [row for row in summary.rows if row.outcome == "invalid"]
    shown = [
        f"{n} {word}"
        for word, n in (
            ("complete", c.complete),
            ("pruned", c.pruned),
            ("failed", c.failed - sum(row.state == "failed" for row in invalid)),
            ("running", c.running),
            ("paused", c.paused),
            ("waiting", c.waiting),
        )
        if n or word in ("complete", "pruned")
    ]
    others = f"; {len(invalid)} of another program, invalid and not counted" if invalid else ""
    out.print(f"{summary.noun + 's':9s}  {c.finished} of {c.budget}: {', '.join(shown)}{others}")
    for line in bad_end_lines(summary):
        out.print(f"           {line}")


def _untried_text(summary: Summary) -> str:
    """Returns which choices no trial has had: ``activation elu and silu; optimizer sgd``."""
    texts = {name: [format_value(c) for c in found] for name, found in summary.untried.items()}
    return "; ".join(f"{one_line(name)} {format_list(found)}" for name, found in texts.items())


def _gain_over_first(summary: Summary) -> str:
    gain_db, first = summary.shown_gain_db or 0.0, f"the first trial (trial {summary.first_number})"
    if gain_db <= 0:
        return f"none: no trial is better than {first}"
    return f"{gain_db:.2f} dB better than {first}"


def note_next(
    study: str,
    places: Mapping[str, str],
    where: Sequence[str],
    *,
    compared: Sequence[str],
    by: bool = False,
) -> None:
    """Prints the commands that usually follow a search: report, compare and train.

    Args:
        study: The study's name.
        places: Values of the options for storage and folders that are not the defaults.
        where: The options that say where trials are trained, as they were typed.
        compared: Names of the searched parameters with choices that ``compare`` would compare.
        by: Whether ``compare`` compares them only if it is told their names.
    """
    report = _command("report", study, places, "--storage", "--artifacts", out="report.html")
    out = f"{study}-best" if Path("best").exists() else "best"  # it may be another study's
    train = _command("train", study, places, *places, out=out, where=where)
    lines = {report: "what decides, in one page"}
    if compared:
        named = [word for name in compared for word in ("--by", name)] if by else []
        compare = _command("compare", study, places, *places, words=named, where=where)
        verb = "matters" if len(compared) == 1 else "matter"
        lines[compare] = (
            f"whether {format_list(compared)} {verb}, by an experiment (--until 1: sooner)"
        )
    lines[train] = "the best trial trained anew, for more epochs, and tested"
    note_password(places.get("--storage", ""))
    width = max(map(len, lines))
    for i, (command, what) in enumerate(lines.items()):
        print_note(f"{'' if i else 'next:':5s} {command:{width}}   {what}")


def note_next_of_compare(study: str, places: Mapping[str, str], where: Sequence[str]) -> None:
    """Prints the command that trains the best setting of a comparison; see ``note_next``."""
    out, words = f"{study}-compared", ("--trial", "compared")
    command = _command("train", study, places, *places, out=out, words=words, where=where)
    note_password(places.get("--storage", ""))
    print_note(f"next: {command}   the best setting trained anew, for more epochs, and tested")


def places_elsewhere(storage: str, data_dir: Path, artifacts: ArtifactPath) -> dict[str, str]:
    """Returns the options for storage and folders that are not the defaults, and ``--factory``."""
    places = (
        ("--storage", storage, DEFAULT_STORAGE),
        ("--data-dir", str(data_dir), "data"),
        ("--artifacts", str(artifacts), "artifacts"),
        ("--factory", below_here(os.environ.get(FACTORY_VARIABLE, "")), ""),
    )
    return {option: value for option, value, usual in places if value != usual}


def note_password(storage: str) -> None:
    """Says how the next commands get a storage whose password is not shown; see ``_command``."""
    if has_password(storage) and not os.environ.get("SEARCHAE_STORAGE"):
        print_note(
            "first: export SEARCHAE_STORAGE=URL   with the URL that you have typed, since its "
            "password is not shown here"
        )


def _command(
    name: str,
    study: str,
    places: Mapping[str, str],
    *options: str,
    out: str = "",
    words: Sequence[str] = (),
    where: Sequence[str] = (),
) -> str:
    """Returns a command line with those of ``places`` that are among the command's options.

    A storage whose password is masked is left out, since the command could not be typed with it.
    """
    given = {o: places[o] for o in options if o in places and MASK not in places[o]}
    named = (word for option in given.items() for word in option)
    to = ["--out", out] if out else []
    return shlex.join(["searchae", name, "-s", study, *words, *named, *where, *to])


def _print_workers(out: SafeConsole, summary: Summary) -> None:
    out.print(f"workers    {len(summary.workers)} alive")
    running = {row.worker: row for row in summary.rows if row.state == "running"}
    for w in summary.workers:
        row = running.get(w.worker)
        doing = (
            "idle"
            if row is None
            else f"{summary.noun} {row.number}, epoch {format_number(row.epochs)} done"
        )
        out.print(
            f"  {w.host} pid {w.pid} on {w.device}: {doing}; up {format_duration(w.age_s)}, "
            f"last seen {w.silent_s:.0f} s ago",
        )


def front_line(summary: Summary) -> str:
    """Returns the ends of the front: the trials of the highest and the lowest PSNR on it."""
    ends = (summary.front[0], summary.front[-1])[: len(summary.front)]
    texts = (f"trial {r.number} ({', '.join(objective_texts(r.values))})" for r in ends)
    return f"{format_count(len(summary.front), 'trial')}: {' to '.join(texts)}"


def print_front(rows: Sequence[TrialRow]) -> None:
    """Prints the trials of a Pareto front as a table."""
    objectives = [OBJECTIVES[name] for name in rows[0].values]
    cells = [["trial", *(o.title for o in objectives)]]
    cells += [[str(r.number), *(o.text(r.values[o.name]) for o in objectives)] for r in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = ["", *(format_assignments(r.params) for r in rows)]
    print(f"the front: {format_count(len(rows), 'trial')} that no other one dominates")
    for line, params in zip(cells, texts, strict=True):
        shown = "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print_line(f"  {shown}  {params}".rstrip())


def print_best(row: TrialRow) -> None:
    """Prints the best trial, one parameter per line."""
    print(
        f"trial {row.number}: {row.psnr_db:.3f} dB on the validation split, "
        f"{format_count(row.epochs, 'epoch')}"
    )
    for name, v in row.params.items():
        print_line(f"  {name:18s} {format_value(v)}")


def print_counts(counts: Mapping[str, int]) -> None:
    """Prints how many trials a worker ended, by outcome."""
    parts = [
        f"{n} {_COUNT_LABELS.get(name, name.replace('_', ' '))}" for name, n in counts.items() if n
    ]
    print("this worker: " + (", ".join(parts) or "no trials"))


def print_studies(files: Mapping[str, Path], stored: Sequence[StudyOverview]) -> None:
    """Prints the study files and the stored studies.

    Args:
        files: Paths by name.
        stored: The studies in the storage.
    """
    print("study files (searchae tune --study NAME):")
    for name, path in files.items():
        try:
            description = read_toml(path).get("description", "")
        except SpecError:
            description = f"(cannot be read: {path})"
        # Without a terminal, a line a study: it may be searched for words.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
        indented = textwrap.wrap(str(description), max(width - 17, 20)) or [""]
        print(f"  {one_line(name):14s} " + f"\n{'':17s}".join(indented))
    print("in the storage (searchae status --study NAME):")
    names = [one_line(s.name) for s in stored]
    width = max(map(len, names), default=0)
    for name, overview in zip(names, stored, strict=True):
        print_line(f"  {name:{width}s}  {overview.text}{_study_details(overview)}")
    if not stored:
        print("  none yet")


def _study_details(overview: StudyOverview) -> str:
    """Returns how trials ended, when that was, and how large the study's folder is."""
    parts = []
    if overview.finished:
        parts.append(f"{overview.complete:,} complete, {overview.pruned:,} pruned")
    days = [_local_day(at) for at in (overview.created, overview.last_trial) if at]
    if days:
        parts.append(" to ".join(dict.fromkeys(days)))
    if overview.artifact_bytes is not None:
        parts.append(f"{overview.artifact_bytes / 1e6:.1f} MB of files")
    return f" ({'; '.join(parts)})" if parts else ""


def _local_day(at: str) -> str:
    return f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d}"


def print_splits(document: Mapping[str, Any]) -> None:
    """Prints the splits of a data set."""
    for key, v in document.items():
        if key not in ("levels", "also_in_train", "white"):
            print_line(f"{key:14s} {v}")
    for name, found in document["levels"].items():
        levels = f"{found['min']} to {found['max']}, mean {found['mean']:.1f}"
        print(f"{'levels':14s} {name}: {levels} (0 is black, {document['white']} white)")
    for name, count in document["also_in_train"].items():
        print(f"{'also in train':14s} {count} of {document[name]} {name} images")


def plan_document(plan: DryRun) -> dict[str, Any]:
    """Returns a dry run as a JSON object."""
    document = asdict(plan)
    document |= document.pop("duration") or {}
    document["spec"] = plan.spec.document()
    document["space"] = {p.name: p.document() for p in plan.spec.space}
    return document


def print_plan(plan: DryRun) -> None:
    """Prints a dry run."""
    spec, time = plan.spec, plan.duration
    out = SafeConsole()
    out.print(f"study      {plan.name}: {spec.description}")
    for key in ("train", "validation", "test"):
        out.print(f"{key:10s} {plan.splits[key]:,} images")
    out.print(f"data       {spec.data.name}, hash {plan.splits['hash'][:12]}{_prepared(spec)}")
    low, high = plan.parameters
    size = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    out.print(f"net        {spec.fixed['model'].get('kind', 'searched')}, {size} parameters")
    table = Table("searched", "range", box=None, pad_edge=False)
    for p in spec.space:
        table.add_row(p.name, _range(p.document()))
    out.print(table if spec.space else "searched   nothing: every trial would be the same")
    search = spec.search
    pruner = "no pruning" if search.has_several_objectives else search.pruner
    trials = format_count(search.trials, "trial")
    out.print(f"search     {trials}, {search.sampler}, {pruner}, seed {spec.seed}")
    if search.stop_when_stable:
        count = search.stop_when_stable
        out.print(f"           ends once {count} trials in a row have not beaten the best one")
    if plan.objectives:
        out.print(f"           {plan.objectives}")
    if plan.done:
        left = max(0, search.trials - plan.done)
        out.print(f"done       {format_count(plan.done, 'trial')} already, {left} to run")
    if plan.begins:
        out.print(f"begins     with {format_assignments(plan.begins)}")
    out.print(
        f"runs on    {plan.device} in {plan.precision}, {format_count(plan.workers, 'worker')} "
        f"with {format_count(plan.threads, 'thread')} each, convolutions by {_convolutions(plan)}"
    )
    out.print(f"baseline   {plan.baseline_db:.2f} dB")
    if time is None:
        out.print("time       unknown: the steps that were to be measured ended badly")
    else:
        out.print(
            f"time       {time.step_s * 1e3:.1f} ms per step, measured now, "
            f"about {format_duration(time.epoch_s)} per epoch, "
            f"{format_duration(time.epoch_s * spec.epochs)} per full training of "
            f"{format_count(spec.epochs, 'epoch')}"
        )
        by_regularizer = time.step_s_by_regularizer
        if by_regularizer and max(by_regularizer.values()) > UNLIKE * min(by_regularizer.values()):
            texts = [f"{name} {s * 1e3:.1f} ms" for name, s in by_regularizer.items()]
            out.print(f"           with {', '.join(texts)} per step; the mean counts")
        out.print(f"           {time.text}")
    out.print("Nothing was trained; leave out --dry-run to start.")


def _prepared(spec: StudySpec) -> str:
    if spec.data.name != "folder":
        return ""
    from searchae.data import Preparation

    return f"; each image {Preparation.of(spec.data).text}"


def _convolutions(plan: DryRun) -> str:
    if plan.kernels == "torch":
        return plan.kernels
    none = "" if plan.kernels_fit else " (no layer of these nets)"
    return f"{plan.kernels} where it fits{none}"


def _range(document: Mapping[str, Any]) -> str:
    if "choices" in document:
        return ", ".join(str(format_value(c)) for c in document["choices"])
    scale = " (log)" if document.get("log") else ""
    return f"{document['low']:g} to {document['high']:g}{scale}"
