"""The comparison as one self-contained HTML file, in the report's style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from searchae.compare import plots
from searchae.compare.plots import ByteImages
from searchae.compare.verdict import SideFigures, TrainingRecords, Verdict, combined_notes
from searchae.files import atomic_file
from searchae.report import EMPTY_CELL, HtmlSection, html_document, html_plot, html_table

METHOD = (
    "The best trials of each side by their search PSNR (validation split), those that the search "
    "had stopped early last, trained anew over the same seeds, none of which is the search's own, "
    "and with the same epochs; compared on the test split, which nothing was chosen by. Intervals "
    "come from a bootstrap over images, seeds and trials, paired by image and by seed, as wide as "
    "Student's t makes them for so few seeds and trials."
)


def write_comparison(
    path: Path,
    verdicts: Sequence[Verdict],
    trained: TrainingRecords,
    originals: ByteImages,
    *,
    study: str,
    how_long: str,
) -> None:
    """Writes the comparison atomically.

    Args:
        path: The file, in an existing folder.
        verdicts: The results.
        trained: The trainings.
        originals: The test images, uint8 (n, C, H, W), whose reconstructions were stored.
        study: The study's name.
        how_long: A sentence on the number and the epochs of the trainings.

    Raises:
        OSError: The file cannot be written.
    """
    sections = [_conclusions_section(verdicts, how_long)]
    sections += [_parameter_section(v, trained, originals) for v in verdicts]
    content = html_document(sections, heading=study, brand="searchae compare").encode()
    with atomic_file(path) as file:
        file.write(content)


def _conclusions_section(verdicts: Sequence[Verdict], how_long: str) -> HtmlSection:
    sentences = "".join(f"<p>{_bold_name(v.sentence)}.</p>" for v in verdicts)
    notes = "".join(f'<p class="note">{escape(n)}.</p>' for n in combined_notes(verdicts))
    body = f'<div class="say">{sentences}</div>{notes}<p class="note">{escape(METHOD)}</p>'
    return HtmlSection("result", "", body + f'<p class="note">{escape(how_long)}</p>')


def _bold_name(sentence: str) -> str:
    name, _, rest = sentence.partition(":")
    return f"<b>{escape(name)}:</b>{escape(rest)}"


def _parameter_section(
    verdict: Verdict, trained: TrainingRecords, originals: ByteImages
) -> HtmlSection:
    body = f"<p>{_bold_name(verdict.sentence)}.</p>" + html_table(
        COMPARISON_HEADERS,
        [comparison_cells(s) for s in verdict.sides],
        numeric=range(1, len(COMPARISON_HEADERS) - 1),
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


COMPARISON_HEADERS = ("", "PSNR, dB", "deviation", "SSIM", "MSE", "near zero", "searched", "trials")
"""Headings of the table of sides, on the page and in the terminal."""


def comparison_cells(side: SideFigures) -> tuple[str, ...]:
    """Returns a side's row of the table with ``COMPARISON_HEADERS``."""
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
