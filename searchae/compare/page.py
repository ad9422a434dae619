"""Verdicts -> one HTML file that needs nothing else, in the report's style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from searchae.compare import plots
from searchae.compare.plots import Bytes
from searchae.compare.verdict import SideFigures, Trained, Verdict, notes_of
from searchae.files import atomic_file
from searchae.report import EMPTY_CELL, HtmlSection, html_document, html_plot, html_table

HOW = (
    "The best trials of each side by their search PSNR (validation split), those that the search "
    "had stopped early last, trained anew over the same seeds, none of which is the search's own, "
    "and with the same epochs; compared on the test split, which nothing was chosen by. Intervals "
    "come from a bootstrap over images, seeds and trials, paired by image and by seed, as wide as "
    "Student's t makes them for so few seeds and trials."
)


def write_comparison(
    path: Path,
    verdicts: Sequence[Verdict],
    trained: Trained,
    originals: Bytes,
    *,
    study: str,
    how_long: str,
) -> None:
    """Writes the comparison, whole or not at all.

    Args:
        path: The file; its folder is there.
        verdicts: What was found.
        trained: The trainings.
        originals: Test images, uint8 (n, C, H, W), whose reconstructions the trainings kept.
        study: The study's name.
        how_long: How the trainings were trained, in words.

    Raises:
        OSError: The file cannot be written.
    """
    sections = [_answers(verdicts, how_long)]
    sections += [_parameter(v, trained, originals) for v in verdicts]
    content = html_document(sections, heading=study, brand="searchae compare").encode()
    with atomic_file(path) as file:
        file.write(content)


def _answers(verdicts: Sequence[Verdict], how_long: str) -> HtmlSection:
    said = "".join(f"<p>{_bold(v.sentence)}.</p>" for v in verdicts)
    notes = "".join(f'<p class="note">{escape(n)}.</p>' for n in notes_of(verdicts))
    body = f'<div class="say">{said}</div>{notes}<p class="note">{escape(HOW)}</p>'
    return HtmlSection("result", "", body + f'<p class="note">{escape(how_long)}</p>')


def _bold(sentence: str) -> str:
    name, _, rest = sentence.partition(":")
    return f"<b>{escape(name)}:</b>{escape(rest)}"


def _parameter(verdict: Verdict, trained: Trained, originals: Bytes) -> HtmlSection:
    body = f"<p>{_bold(verdict.sentence)}.</p>" + html_table(
        HEAD, [cells(s) for s in verdict.sides], numeric=range(1, len(HEAD) - 1)
    )
    if len(verdict.sides) < 2:
        return HtmlSection(verdict.parameter, verdict.parameter, body)
    figures = (
        plots.trainings_plot(verdict, trained),
        plots.intervals_plot(verdict),
        plots.losses_plot(verdict, trained),
    )
    first, second, third = map(html_plot, figures)
    body += f'<div class="grid wide">{first}{second}</div>{third}'
    picture = plots.reconstructions_plot(verdict, trained, originals)
    shown = ", ".join(f"{s.name}: trial {s.trials[0]}" for s in verdict.sides)
    body += (
        "<h3>The same test images</h3>"
        f'<p class="note">As the best trial of each side reconstructs them ({escape(shown)}; seed '
        f"{verdict.seeds[0]}).</p>"
        '<figure class="picture"><div class="scroll"><img alt="Originals, and their '
        f'reconstructions by each side" src="data:image/png;base64,{picture}"></div></figure>'
    )
    return HtmlSection(verdict.parameter, verdict.parameter, body, figures)


HEAD = ("", "PSNR, dB", "deviation", "SSIM", "MSE", "near zero", "searched", "trials")
"""Of the table of sides, on the page and in the terminal."""


def cells(side: SideFigures) -> tuple[str, ...]:
    """A side as a row of that table."""
    deviation = EMPTY_CELL if side.psnr_std_db is None else f"{side.psnr_std_db:.2f}"
    return (
        side.name,
        f"{side.psnr_db:.2f}",
        deviation,
        f"{side.ssim:.4f}",
        f"{side.mse:.6f}",
        f"{side.sparsity:.1%}",
        str(side.finished),
        ", ".join(map(str, side.trials)),
    )
