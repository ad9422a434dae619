"""The report's first section: key figures, and what the search found."""

from __future__ import annotations

from searchae.config import compared_by_default
from searchae.formatting import (
    format_count,
    format_duration,
    format_list,
    format_number,
    format_shares,
    format_value,
    html_text,
    shown_difference,
)
from searchae.report.findings import Findings
from searchae.report.html_parts import HtmlSection, gain_text, study_command

MIN_TRIALS_FOR_IMPORTANCES = 50
"""With fewer ended trials, the text does not mention importances."""


def headline_section(found: Findings) -> HtmlSection:
    """Returns the section with the key figures and the conclusions."""
    s = found.summary
    description = found.spec.description
    taken_at = f"{found.taken_at:%Y-%m-%d %H:%M %Z}"
    cells = "".join(
        f"<div><dt>{html_text(k)}</dt><dd>{html_text(v)}<small>{html_text(detail)}</small></dd></div>"
        for k, v, detail in tiles(found)
    )
    body = (
        f'<p class="lead">{html_text(description)}</p>\n' if description else ""
    ) + f'<dl class="tiles">{cells}</dl>\n<div class="say">{_conclusions(found)}</div>'
    if s.early_end is not None:
        body += f'<p class="note">The search {html_text(s.early_end.text)}.</p>'
    body += "".join(f'<p class="warning">{html_text(w)}</p>' for w in s.warnings)
    body += f'<p class="note">As it stood on {html_text(taken_at)}, in {html_text(s.storage)}.</p>'
    return HtmlSection("result", "", body)


def tiles(found: Findings) -> list[tuple[str, str, str]]:
    """Returns the key figures, each with its name and a detail."""
    s, c = found.summary, found.summary.counts
    best = found.best[0] if found.best else None
    hosts = {str(r.runtime.get("host")) for r in found.runs if r.runtime}
    devices = {str(r.runtime.get("device")) for r in found.runs if r.runtime}
    saved = f"{s.epochs_saved / s.epochs_full:.0%}" if s.epochs_full else "none yet"
    return [
        ("best PSNR", f"{best.psnr_db:.2f} dB" if best else "none yet", "validation split"),
        (
            "over the baseline",
            f"{gain_text(best, found)} dB" if best else "none yet",
            f"the mean training image has {s.baseline_db:.2f} dB",
        ),
        ("trials", f"{c.finished:,} of {c.budget:,}", _states(found)),
        (
            "epochs saved",
            saved,
            f"{format_number(s.epochs_run)} run, {s.epochs_full:,} without pruning",
        ),
        (
            "wall time",
            format_duration(s.wall_s),
            f"{format_duration(_trial_seconds(found))} of all workers together",
        ),
        (
            "ran on",
            format_count(len(hosts), "machine"),
            format_list(sorted(devices)) if devices else "",
        ),
    ]


def _conclusions(found: Findings) -> str:
    """Returns what the search found, and what it does not show."""
    text = found_html(found)
    if not found.best:
        return text
    name = found.summary.study
    text += (
        f"<p><b>Not known yet:</b> whether trial {found.best[0].row.number} is really the best. "
        "Each trial is one training with one seed, measured on the validation split, and the best "
        f"of {len(found.runs):,} such values is too high by chance. "
        f"<code>{html_text(study_command('train', name))} --seeds 5 --out DIR</code> measures it "
        "on the test split over seeds"
    )
    compared = [p.name for p in compared_by_default(found.spec.space)]
    if compared and not found.comparison:
        text += (
            f"; <code>{html_text(study_command('compare', name))}</code> says which "
            f"{format_list(compared)} {'wins' if len(compared) == 1 else 'win'}, or that no "
            "difference is shown"
        )
    return f"{text}.</p>"


def found_html(found: Findings) -> str:
    """Returns what the search found, as HTML."""
    if not found.best:
        return "<p><b>Found:</b> nothing yet; no trial has trained to its end.</p>"
    best, c = found.best[0], found.summary.counts
    gain = shown_difference(best.psnr_db, found.summary.baseline_db)
    chosen = ", ".join(
        f"{k} <b>{html_text(format_value(v))}</b>" for k, v in best.row.params.items()
    )
    text = (
        f"<p><b>Found:</b> trial {best.row.number} reached {best.psnr_db:.2f} dB, "
        f"{abs(gain):.2f} dB {'above' if gain >= 0 else 'below'} answering every image with the "
        f"mean training image{', with ' + chosen if chosen else ''}."
    )
    if (gain_db := found.summary.shown_gain_db) is not None:
        than = f"the first trial (trial {found.summary.first_number})"
        text += (
            f" That is {gain_db:.2f} dB above {than}."
            if gain_db > 0
            else (f" No trial is better than {than}.")
        )
    shares = found.importances.shares
    if shares and found.importances.trials >= MIN_TRIALS_FOR_IMPORTANCES:
        leader = next(iter(shares))
        text += (
            f" What sets the best trials apart most is {html_text(leader)} "
            f"({format_shares(list(shares.values()))[0]} of the importance)."
        )
    if c.finished < c.budget:
        text += f" The search is not over: {c.finished:,} of {c.budget:,} trials have ended."
    text += "</p>"
    if found.comparison:
        sentences = " ".join(
            f"{html_text(c['sentence'])}." for c in found.comparison["comparisons"]
        )
        text += f"<p><b>Compared:</b> {sentences}</p>"
    return text


def _states(found: Findings) -> str:
    c = found.summary.counts
    parts = [f"{c.complete:,} complete", f"{c.pruned:,} pruned"]
    parts += [
        f"{n:,} {word}"
        for n, word in (
            (c.failed, "failed"),
            (c.running, "running"),
            (c.paused, "paused"),
            (c.waiting, "waiting"),
        )
        if n
    ]
    if found.summary.refused:
        parts.append(f"{format_count(found.summary.refused, 'larger net')} refused")
    return ", ".join(parts)


def _trial_seconds(found: Findings) -> float:
    return sum(r.row.seconds or 0.0 for r in found.runs)
