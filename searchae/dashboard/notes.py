"""What searchae says of a trial and of a study, in Markdown, where no person has said anything.

The notes are not stored: they are put into what the dashboard answers. Whatever comes from outside
(names, values, errors) is escaped, or stands in a fence that it cannot close.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from searchae.formatting import format_duration, format_value
from searchae.study import ERROR, WARM_START, StoredStudy, Summary, TrialRow

_SPECIAL = re.compile(r"([\\`*_\[\]<>&|~!#$])")
"""What means something within a line; nothing that is escaped begins one."""
_LONGEST_ERROR = 300


def trial_note(
    stored: StoredStudy, row: TrialRow, attributes: Mapping[str, Any], pictures: Mapping[str, str]
) -> str:
    """What a trial's page says of it.

    Args:
        stored: Its study.
        row: The trial.
        attributes: Its user attributes.
        pictures: What is seen in it -> path of a picture.
    """
    parts = [_what_came_of_it(stored, row)]
    if row.outcome and (error := str(attributes.get(ERROR, "")).strip()):
        parts.append(fenced(error[:_LONGEST_ERROR]))
    if row.imported:
        source = escaped(str(attributes[WARM_START]))
        parts.append(f"Taken over from {source} by --warm-start: it does not count.")
    parts += [f"![{alt}]({path})" for alt, path in pictures.items()]
    if row.params:
        parts.append(_parameters(row))
    if row.state in ("complete", "pruned") and not row.outcome:
        command = _command("train", stored.name, f"--trial {row.number} --out trial-{row.number}")
        parts.append("Train it again, and measure it on the test split:\n\n" + fenced(command))
    return "\n\n".join(parts)


def study_note(summary: Summary, picture: str = "") -> str:
    """What a study's page says of it.

    Args:
        summary: The study.
        picture: Path of the best trial's reconstructions, if there are any.
    """
    best, counts, name = summary.best, summary.counts, summary.study
    parts = ["**No trial has trained to its end yet.**"]
    if best is not None and best.psnr_db is not None:
        parts = [
            f"### {best.psnr_db:.2f} dB: trial {best.number} is the best so far",
            f"{_gain(best.psnr_db, summary.baseline_db)} the baseline of "
            f"{summary.baseline_db:.2f} dB, which is the mean training image for every image.",
        ]
        if best.params:
            parts.append(_parameters(best))
    if picture:
        parts.append(f"![Originals above, the best trial's reconstructions below]({picture})")
    by_state = {
        s: getattr(counts, s) for s in ("complete", "pruned", "running", "waiting", "failed")
    }
    states = ", ".join(f"{n:,} {state}" for state, n in by_state.items() if n)
    saved = f" ({summary.epochs_saved / summary.epochs_full:.0%})" if summary.epochs_full else ""
    rows = {
        "trials": f"**{counts.finished:,} of {counts.budget:,}**"
        + (f": {states}" if states else ""),
        "epochs": f"{summary.epochs_run:,} run, **{summary.epochs_saved:,} saved**{saved} by "
        "pruning and plateaus",
        "time": f"{format_duration(summary.wall_s)} since the first trial began",
    }
    if summary.outcomes:
        bad = (f"{n:,} {escaped(outcome)}" for outcome, n in summary.outcomes.items())
        rows["ended badly"] = ", ".join(bad)
    lines = (f"| {k}&emsp; | {v} |" for k, v in rows.items())
    parts.append("| | |\n|---|---|\n" + "\n".join(lines))
    parts += [f"**Note:** {escaped(w)}" for w in summary.warnings]
    parts.append(
        "The `searchae tune` command that began this search "
        + ("finishes it" if counts.finished < counts.budget else "goes on with a larger `--trials`")
        + "."
    )
    if best is not None:
        commands = (
            _command("train", name, "--seeds 5 --out best"),
            _command("compare", name),
            _command("report", name, "--out report.html"),
        )
        what = "Retrain the best, see which choices win, write it all into one file:"
        parts.append(what + "\n\n" + fenced("\n".join(commands)))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Text as Markdown that shows just that, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def fenced(text: str) -> str:
    """Lines of code, in a fence longer than any in them."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _what_came_of_it(stored: StoredStudy, row: TrialRow) -> str:
    spec, psnr = stored.spec, "" if row.psnr_db is None else f"{row.psnr_db:.2f} dB"
    epochs = f"epoch {row.epochs} of {spec.epochs}"
    if row.outcome:
        return f"**Ended badly: {escaped(row.outcome)}**" + (f" after {epochs}." if psnr else ".")
    if row.state == "pruned":
        return (
            f"**Pruned after {epochs}**, at {psnr or 'no result'}: the {spec.search.pruner} pruner "
            "gave its epochs to trials that were better by then."
        )
    if row.state == "complete" and row.psnr_db is not None:
        early = ", when it had stopped improving" if row.epochs < spec.epochs else ""
        return (
            f"**{psnr}** on the validation split after {epochs}{early}, "
            f"{_gain(row.psnr_db, stored.baseline_db)} the baseline."
        )
    state = escaped(row.state.capitalize())
    return f"**{state}**" + (f": {psnr} after {epochs}." if psnr else ".")


def _gain(psnr_db: float, baseline_db: float) -> str:
    gain = psnr_db - baseline_db
    return f"{abs(gain):.2f} dB {'above' if gain >= 0 else 'below'}"


def _parameters(row: TrialRow) -> str:
    return ", ".join(f"{escaped(k)} **{escaped(format_value(v))}**" for k, v in row.params.items())


def _command(command: str, study: str, options: str = "") -> str:
    return f"searchae {command} --study {shlex.quote(study)} {options}".rstrip()
