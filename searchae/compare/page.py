"""The comparison as one self-contained HTML file, in the report's style."""

from __future__ import annotations

from pathlib import Path

from searchae.compare import plots
from searchae.compare.choice_table import COMPARISON_HEADERS, comparison_cells
from searchae.compare.curve_plot import curve_plot
from searchae.compare.penalty_curve import PenaltyCurve
from searchae.compare.plots import ByteImages
from searchae.compare.result import ComparisonResult
from searchae.compare.verdict import Verdict, span_text
from searchae.files import SharedFolder, output_file
from searchae.formatting import format_assignments, format_count, html_text
from searchae.report import HtmlSection, html_document, html_plot, html_table
from searchae.training import LEARNED_DB

METHOD = (
    "A matched experiment. Bases are settings of all other parameters, taken from the study's "
    "best trials and different from each other. Each choice is put into each base, gets tries by "
    "one rule to find its own learning rate there (and the other searched values that not every "
    "choice has) on the validation split: short trainings, and longer ones of the best. "
    "It is then trained with the same new seeds and measured on the test split, by which "
    "nothing was chosen. Differences are paired by base, seed and image, over trainings that did "
    "not fail; a choice of which more than half failed counts with all of them, the failed ones as "
    "the mean training image, and one that gains less than half of what the best trial gains over "
    "the mean training image, in its first bases, is not tried in the "
    f"others. A training fails if it diverges, dies or ends less than {LEARNED_DB:g} dB above the "
    "mean training image. An interval holds for the settings that can be bases: where they are "
    "few, all of them are used, each counted alike; else for others of the same kind, too. That "
    "another tuning may find other learning rates is counted, as far as the finals show it. Each "
    "sentence says something false at most 5% of the time, over all pairs of the parameter and all "
    "looks at the results. Near zero: the share "
    "of latents below 1e-3 in magnitude. Hoyer's sparsity is 0 where all latents of an image have "
    "one magnitude, and 1 where a single one is not zero."
)


def write_comparison(
    path: Path,
    result: ComparisonResult,
    originals: ByteImages,
    *,
    study: str,
    about: str,
    is_shared: bool = False,
) -> None:
    """Writes the comparison.

    Args:
        path: The file; its folder is created.
        result: The comparison.
        originals: The test images, uint8 (n, C, H, W), whose reconstructions were stored.
        study: The study's name.
        about: A sentence on the number and the cost of the trainings.
        is_shared: Whether it is a file in the folder that all workers share, not one that the user
            named.

    Raises:
        OSError: The file cannot be written.
    """
    sections = [_answers_section(result)]
    for verdict in result.verdicts:
        sections.append(_parameter_section(verdict, originals))
        if result.curve is not None and verdict.parameter == "regularizer":
            sections.append(_curve_section(result.curve))
    sections.append(_method_section(about))
    content = html_document(sections, heading=study, brand="searchae compare").encode()
    if not is_shared:
        path.parent.mkdir(parents=True, exist_ok=True)
    with SharedFolder(path.parent).writing(path.name) if is_shared else output_file(path) as file:
        file.write(content)


def _answers_section(result: ComparisonResult) -> HtmlSection:
    sentences = "".join(
        f'<p>{_bold_name(v.sentence)}. <span class="note">From {html_text(v.rests_on)}.</span></p>'
        for v in result.verdicts
    )
    if (curve := result.curve) is not None:
        name, _, rest = curve.sentence.partition(" against no penalty: ")
        of = f"{format_count(len(curve.bases), 'base')}, {format_count(curve.seeds, 'seed')}"
        sentences += (
            f"<p><b>{html_text(name)} against no penalty:</b> {html_text(rest)}. "
            f'<span class="note">From {of}; {html_text(curve.front)}.</span></p>'
        )
    notes = "".join(f"<li>{html_text(n[:1].upper() + n[1:])}.</li>" for n in result.notes)
    best = result.best.sentence if result.best else ""
    sentences += f"<p>{html_text(best[0].upper() + best[1:])}.</p>" if best else ""
    body = f'<div class="say">{sentences}</div>' + (f"<ul>{notes}</ul>" if notes else "")
    return HtmlSection("result", "", body)


def _curve_section(curve: PenaltyCurve) -> HtmlSection:
    plot = curve_plot(curve)
    head = (
        "l1_weight",
        "PSNR, dB",
        "over no penalty, dB",
        "interval",
        "near zero",
        "Hoyer",
        "interval",
        "",
    )
    rows = [
        (
            f"{p.weight:g}",
            f"{p.psnr_db:.2f}",
            f"{p.gain_db:+.2f}" if p.weight else "",
            span_text(p.low_db, p.high_db) if p.weight else "",
            f"{p.near_zero:.1%}",
            f"{p.hoyer:.3f}",
            f"{p.hoyer_low:.3f} to {p.hoyer_high:.3f}",
            "another weight has better means" if p.is_dominated else "",
        )
        for p in curve.points
    ]
    by_base = html_table(
        ("over no penalty, dB, in", *(f"{p.weight:g}" for p in curve.points[1:])),
        [
            (name, *(_gain(p.by_base_db[b]) for p in curve.points[1:]))
            for b, name in enumerate(curve.bases)
        ],
        numeric=range(1, len(curve.points)),
    )
    body = (
        "<p>Each base trained without the penalty and with each weight, all else equal, over the "
        f"same {curve.seeds} new seeds; measured on the test split.</p>"
        f"{html_plot(plot)}{html_table(head, rows, numeric=range(7))}"
        f"<h3>By base</h3>{by_base}"
    )
    return HtmlSection("l1", "What the L1 penalty costs and buys", body, (plot,))


def _gain(gain_db: float | None) -> str:
    return "failed" if gain_db is None else f"{gain_db:+.2f}"


def _method_section(about: str) -> HtmlSection:
    body = f'<p class="note">{html_text(METHOD)}</p><p class="note">{html_text(about)}</p>'
    return HtmlSection("method", "How it was measured", body)


def _bold_name(sentence: str) -> str:
    name, _, rest = sentence.partition(":")
    return f"<b>{html_text(name)}:</b>{html_text(rest)}"


def _parameter_section(verdict: Verdict, originals: ByteImages) -> HtmlSection:
    figures = (
        plots.effects_plot(verdict),
        plots.trainings_plot(verdict),
        plots.losses_plot(verdict),
    )
    effects, trainings, losses = map(html_plot, figures)
    table = html_table(
        COMPARISON_HEADERS,
        [comparison_cells(verdict, c) for c in verdict.order],
        numeric=range(1, len(COMPARISON_HEADERS)),
    )
    picture = plots.reconstructions_plot(verdict, originals)
    first = f"in the first base, {verdict.bases[0]}" if verdict.bases else ""
    body = (
        f"<p>{_bold_name(verdict.sentence)}.</p>{effects}{table}"
        f'<p class="note">{TABLE_NOTE}</p>'
        "<h3>What each choice was tuned to</h3>"
        f"{_settings_table(verdict)}"
        f'<div class="grid wide">{trainings}{losses}</div>'
        "<h3>The same test images</h3>"
        f'<p class="note">As each choice reconstructs them {html_text(first)}.</p>'
        '<figure class="picture"><div class="scroll"><img alt="Originals, and their '
        f'reconstructions by each choice" src="data:image/png;base64,{picture}"></div></figure>'
    )
    return HtmlSection(verdict.parameter, verdict.parameter, body, figures)


def _settings_table(verdict: Verdict) -> str:
    head = ("base", *(verdict.choices[c].name for c in verdict.order))
    rows = [
        (
            f"{name} (from trial {number})",
            *(_setting(verdict, c, b) for c in verdict.order),
        )
        for b, (name, number) in enumerate(zip(verdict.bases, verdict.base_trials, strict=True))
    ]
    return html_table(head, rows, wrap="words")


def _setting(verdict: Verdict, choice: int, base: int) -> str:
    cell = verdict.cells[choice][base]
    if not cell.records:
        return "not tried"
    tuned = format_assignments(cell.settings)
    return f"{tuned}: {cell.text}" if tuned else cell.text


TABLE_NOTE = (
    "Means over the trainings that did not fail, in the bases in which all choices that train did; "
    "the PSNR of a choice that does not train is over all of its trainings, the failed ones as the "
    "mean training image. A net that several parameters share may have more seeds in one than in "
    "another."
)
