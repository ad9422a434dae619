"""The sections of the report, in order.

A section is a function from the findings to an ``HtmlSection``; add new ones to ``SECTIONS``. All
text that users wrote is escaped.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

from searchae.config import OBJECTIVES
from searchae.formatting import (
    format_count,
    format_duration,
    format_number,
    format_value,
    html_text,
    shortened,
)
from searchae.report import figures, parameter_plots
from searchae.report.findings import Findings, TrialRun
from searchae.report.headline import headline_section
from searchae.report.html_parts import (
    EMPTY_CELL,
    HtmlSection,
    gain_text,
    html_plot,
    html_table,
    study_command,
)
from searchae.report.provenance import provenance_section
from searchae.study import OUTCOME_TEXTS

TABLE_ROWS, MAX_ERROR_LENGTH = 10, 200


def search_section(found: Findings) -> HtmlSection:
    """Returns the section with PSNR by trial and by epoch."""
    plots = (figures.history_plot(found), figures.curves_plot(found))
    return HtmlSection("search", "The search", "".join(map(html_plot, plots)), plots)


def front_section(found: Findings) -> HtmlSection | None:
    """Returns the section with the Pareto front; None for a study with one objective."""
    if not found.spec.search.has_several_objectives:
        return None
    plot = figures.front_plot(found)
    objectives = [OBJECTIVES[name] for name in found.spec.search.objectives]
    names = [p.name for p in found.spec.space]
    rows = [
        (
            str(run.row.number),
            *(o.text(run.row.values[o.name]) for o in objectives),
            *(_parameter_cell(run, name) for name in names),
        )
        for run in found.front
    ]
    head = ("trial", *(o.title for o in objectives), *names)
    body = html_plot(plot)
    if rows:
        body += html_table(head, rows, numeric=range(len(objectives) + 1))
    return HtmlSection("front", "The front", body, (plot,))


def parameters_section(found: Findings) -> HtmlSection:
    """Returns the section with the parameters' importances and PSNR by their values."""
    plots = (parameter_plots.importances_plot(found), parameter_plots.parallel_plot(found))
    slices = parameter_plots.slice_plots(found)
    body = "".join(map(html_plot, plots))
    if slices:
        body += (
            "<h3>PSNR by the value of each parameter</h3>"
            '<p class="note">Blue: complete. Orange crosses: pruned, at their PSNR when they were '
            "given up. Red triangles: ended badly. Star: the best trial. Bars: the median of "
            "completed trials.</p>"
            f'<div class="grid">{"".join(html_plot(p, level=4) for p in slices)}</div>'
        )
    return HtmlSection("parameters", "The parameters", body, (*plots, *slices))


def best_trials_section(found: Findings) -> HtmlSection:
    """Returns the section with loss, sparsity, pictures and parameters of the best trials."""
    plots = (figures.losses_plot(found), figures.sparsity_plot(found))
    body = f'<div class="grid wide">{"".join(map(html_plot, plots))}</div>'
    body += "<h3>Originals and reconstructions</h3>" + _pictures(found)
    body += f"<h3>The best {format_count(min(TABLE_ROWS, len(found.best)), 'trial')}</h3>"
    body += _best_table(found)
    return HtmlSection("best", "The best trials", body, plots)


def comparison_section(found: Findings) -> HtmlSection:
    """Returns the section with the last result of ``searchae compare``."""
    name = found.summary.study
    if found.comparison is None:
        body = (
            "<p>Not looked into yet. The search tried what looked promising more often, each trial "
            "with one seed, so its trials do not answer this. To compare the choices by an "
            "experiment of their own:</p>"
            f"<pre>{escape(study_command('compare', name))}</pre>"
        )
        return HtmlSection("comparison", "Which choice wins", body)
    verdicts = found.comparison["comparisons"]
    body = "".join(f"<p>{html_text(v['sentence'])}.</p>" for v in verdicts)
    if curve := found.comparison.get("l1_curve"):
        body += f"<p>{html_text(curve['sentence'])}.</p>"
    body = f'<div class="say">{body}</div>'
    notes = found.comparison.get("notes") or [n for v in verdicts for n in v["notes"]]
    body += "".join(f'<p class="note">{html_text(n)}.</p>' for n in dict.fromkeys(notes))
    head = ("", "PSNR, dB", "SSIM", "MSE", "near zero", "bases from trials")
    for v in verdicts:
        rows = [
            (
                s["name"],
                f"{s['psnr_db']:.2f}",
                f"{s['ssim']:.4f}",
                f"{s['mse']:.6f}",
                f"{s['sparsity']:.1%}",
                ", ".join(map(str, s["trials"])),
            )
            for s in v["sides"]
        ]
        body += f"<h3>{html_text(v['parameter'])}</h3>" + html_table(
            head, rows, numeric=range(1, 5)
        )
    seeds = format_count(len(found.comparison["seeds"]), "seed")
    body += (
        '<p class="note">Each choice, in the same settings of the study\'s best trials and with a '
        f"learning rate of its own, trained anew over up to {seeds} and measured on the test "
        "split. Effects by base, curves and pictures stand in the page that "
        f"<code>{html_text(study_command('compare', name))}</code> writes.</p>"
    )
    return HtmlSection("comparison", "Which choice wins", body)


def bad_ends_section(found: Findings) -> HtmlSection:
    """Returns the section that counts the trials that ended badly, by outcome."""
    bad = [r for r in found.runs if r.row.outcome]
    if not bad:
        return HtmlSection(
            "bad-ends", "Failed trials", "<p>No trial diverged, ran out of memory or was lost.</p>"
        )
    counts = Counter(r.row.outcome for r in bad)
    first = {o: next(r for r in bad if r.row.outcome == o) for o in counts}
    rows = [
        (
            o,
            OUTCOME_TEXTS.get(o, "it was added by another program, and is not counted"),
            f"{n:,}",
            f"{n / len(found.runs):.0%}",
            str(first[o].row.number),
            shortened(first[o].error, MAX_ERROR_LENGTH),
        )
        for o, n in counts.most_common()
    ]
    head = ("how", "what it means", "trials", "of all", "first", "what was said of the first")
    return HtmlSection("bad-ends", "Failed trials", html_table(head, rows, numeric={2, 3, 4}))


SECTIONS: list[Callable[[Findings], HtmlSection | None]] = [
    headline_section,
    front_section,
    search_section,
    parameters_section,
    best_trials_section,
    comparison_section,
    bad_ends_section,
    provenance_section,
]
"""In order; a function may return None for no section."""


def _pictures(found: Findings) -> str:
    if not found.pictures:
        return (
            '<p class="note">There are none: pictures of the best trials are drawn by their '
            f"workers into the artifact folder ({html_text(found.summary.study)}/pictures), and it "
            "holds none of this study. Say --artifacts if it is elsewhere.</p>"
        )
    psnrs = {r.row.number: r.psnr_db for r in found.best}
    shown = "".join(
        f'<figure class="picture"><div class="scroll"><img alt="Originals above reconstructions of '
        f'trial {number}, {psnrs[number]:.2f} dB" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></div></figure>'
        for number, png in found.pictures.items()
    )
    return '<p class="note">Validation images; under each its own PSNR.</p>' + shown


def _best_table(found: Findings) -> str:
    if not found.best:
        return "<p>No trial has trained to its end yet.</p>"
    names = [p.name for p in found.spec.space]
    head = ("trial", "PSNR, dB", "over the baseline, dB", "sparsity", "epochs", "time", *names)
    rows = [_best_row(found, r, names) for r in found.best[:TABLE_ROWS]]
    return html_table(head, rows, numeric=range(6))


def _best_row(found: Findings, run: TrialRun, names: Sequence[str]) -> tuple[str, ...]:
    row = run.row
    sparse = f"{run.history['sparsity'][-1]:.1%}" if run.history else EMPTY_CELL
    return (
        str(row.number),
        f"{run.psnr_db:.2f}",
        gain_text(run, found),
        sparse,
        format_number(row.epochs),
        EMPTY_CELL if row.seconds is None else format_duration(row.seconds),
        *(_parameter_cell(run, n) for n in names),
    )


def _parameter_cell(run: TrialRun, name: str) -> str:
    params = run.row.params
    return format_value(params[name]) if name in params else EMPTY_CELL
