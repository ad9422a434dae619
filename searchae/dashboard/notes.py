"""Notes on trials and studies, in Markdown, for trials and studies without a user's own note.

The notes are not stored; they are added to the dashboard's responses. Names, values and errors are
escaped, or put into a code fence that they cannot close.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from searchae.config import factory_hint, objective_texts
from searchae.formatting import format_duration, format_gain, format_number, format_value
from searchae.report import study_command
from searchae.study import (
    ERROR,
    INVALID,
    RUNTIME,
    WARM_START,
    StoredStudy,
    Summary,
    TrialRow,
    bad_end_lines,
)

_SPECIAL = re.compile(r"([\\`*_\[\]<>&|~!#$])")
"""Characters with a meaning within a line of Markdown."""
_MAX_ERROR_LENGTH = 300
MOST_NAMED = 30
"""Trials of a front that a note names."""


def trial_note(
    stored: StoredStudy, row: TrialRow, attributes: Mapping[str, Any], pictures: Mapping[str, str]
) -> str:
    """Returns the note on a trial: its result, parameters and pictures.

    Args:
        stored: The trial's study.
        row: The trial.
        attributes: The trial's user attributes.
        pictures: URL paths of pictures by their alternative text.
    """
    parts = [_result(stored, row)]
    if row.outcome and (error := str(attributes.get(ERROR, "")).strip()):
        parts.append(code_block(error[:_MAX_ERROR_LENGTH]))
    if row.imported:
        source = escape_markdown(str(attributes[WARM_START]))
        parts.append(f"Taken over from {source} by --warm-start: it does not count.")
    if row.values and not row.outcome:
        parts.append(f"Objectives: {', '.join(objective_texts(row.values))}.")
    if runtime := _runtime(attributes):
        parts.append(runtime)
    parts += [f"![{alt}]({path})" for alt, path in pictures.items()]
    if row.params:
        parts.append(_parameters(row))
    if row.state in ("complete", "pruned") and not row.outcome:
        options = f"--trial {row.number} --out trial-{row.number}"
        model = stored.spec.fixed["model"]
        if factory := model.get("factory"):
            options += f" --factory {factory_hint(factory, model['factory_sha256'])}"
        command = study_command("train", stored.name, options)
        parts.append("Train it again, and measure it on the test split:\n\n" + code_block(command))
    return "\n\n".join(parts)


def _runtime(attributes: Mapping[str, Any]) -> str:
    """Returns where a trial was trained; empty if that is not known."""
    runtime = attributes.get(RUNTIME)
    if not isinstance(runtime, dict):
        return ""
    host, device, precision = (str(runtime.get(k, "?")) for k in ("host", "device", "precision"))
    return f"Trained on {escape_markdown(host)}, {escape_markdown(device)}, in {precision}."


def study_note(summary: Summary, picture: str = "") -> str:
    """Returns the note on a study: its best trial, progress, warnings and next commands.

    Args:
        summary: The study's summary.
        picture: URL path of the best trial's reconstructions; empty if there are none.
    """
    parts = [] if summary.trainings_of else _best_trial(summary)
    if picture:
        parts.append(f"![Originals above, the best trial's reconstructions below]({picture})")
    if summary.front:
        numbers = ", ".join(str(row.number) for row in summary.front[:MOST_NAMED])
        more = " ..." if len(summary.front) > MOST_NAMED else ""
        parts.append(f"On the front, which no other trial dominates: trials {numbers}{more}.")
    lines = (f"| {k}&emsp; | {v} |" for k, v in _progress(summary).items())
    parts.append("| | |\n|---|---|\n" + "\n".join(lines))
    if summary.early_end is not None:
        parts.append(f"The search {escape_markdown(summary.early_end.text)}.")
    parts += [f"**Note:** {escape_markdown(w)}" for w in summary.warnings]
    if summary.trainings_of:
        parts.append(
            "These are trainings of `searchae compare` and `searchae train` for study "
            f"{escape_markdown(summary.trainings_of)}, no search: none of them is its best."
        )
        return "\n\n".join(parts)
    over = summary.counts.finished >= summary.counts.budget
    parts.append(
        "The `searchae tune` command that began this search "
        + ("goes on with a larger `--trials`" if over else "finishes it")
        + "."
    )
    if summary.best is not None:
        commands = (
            study_command("train", summary.study, "--seeds 5 --out best"),
            study_command("compare", summary.study),
            study_command("report", summary.study, "--out report.html"),
        )
        what = "Retrain the best, see which choices win, write it all into one file:"
        parts.append(what + "\n\n" + code_block("\n".join(commands)))
    return "\n\n".join(parts)


def _best_trial(summary: Summary) -> list[str]:
    best = summary.best
    if best is None or best.psnr_db is None:
        return ["**No trial has trained to its end yet.**"]
    parts = [
        f"### {best.psnr_db:.2f} dB: trial {best.number} is the best so far",
        f"{format_gain(best.psnr_db, summary.baseline_db)} of "
        f"{summary.baseline_db:.2f} dB, which is the mean training image for every image.",
    ]
    return [*parts, _parameters(best)] if best.params else parts


def _progress(summary: Summary) -> dict[str, str]:
    """Returns the rows of the table of trials, epochs and time."""
    counts = summary.counts
    by_state = {
        s: getattr(counts, s) for s in ("complete", "pruned", "running", "waiting", "failed")
    }
    states = ", ".join(f"{n:,} {state}" for state, n in by_state.items() if n)
    saved = f" ({summary.epochs_saved / summary.epochs_full:.0%})" if summary.epochs_full else ""
    rows = {
        "trials": f"**{counts.finished:,} of {counts.budget:,}**"
        + (f": {states}" if states else ""),
        "epochs": f"{format_number(summary.epochs_run)} run, "
        f"**{format_number(summary.epochs_saved)} saved**{saved} by "
        "stopping trials early",
        "time": f"{format_duration(summary.wall_s)}, pauses left out",
    }
    if bad := bad_end_lines(summary):
        rows["without a result"] = escape_markdown("; ".join(bad))
    if invalid := summary.outcomes.get(INVALID):
        rows["invalid"] = f"{invalid:,} of another program, not counted"
    return rows


def escape_markdown(text: str) -> str:
    """Escapes text for Markdown and joins its lines into one."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code_block(text: str) -> str:
    """Returns a fenced code block; its fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _result(stored: StoredStudy, row: TrialRow) -> str:
    spec, psnr = stored.spec, "" if row.psnr_db is None else f"{row.psnr_db:.2f} dB"
    epochs = f"epoch {format_number(row.epochs)} of {spec.epochs}"
    if row.outcome:
        return f"**Ended badly: {escape_markdown(row.outcome)}**" + (
            f" after {epochs}." if psnr else "."
        )
    if row.state == "pruned":
        return (
            f"**Pruned after {epochs}**, at {psnr or 'no result'}: the {spec.search.pruner} pruner "
            "gave its epochs to trials that were better by then."
        )
    if row.state == "complete" and row.psnr_db is not None:
        early = ", when it had stopped improving" if row.epochs < spec.epochs else ""
        return (
            f"**{psnr}** on the validation split after {epochs}{early}, "
            f"{format_gain(row.psnr_db, stored.baseline_db)}."
        )
    state = escape_markdown(row.state.capitalize())
    return f"**{state}**" + (f": {psnr} after {epochs}." if psnr else ".")


def _parameters(row: TrialRow) -> str:
    return ", ".join(
        f"{escape_markdown(k)} **{escape_markdown(format_value(v))}**"
        for k, v in row.params.items()
    )
