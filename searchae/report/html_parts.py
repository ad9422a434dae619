"""HTML for the report's sections, figures and tables, and texts that several of them contain.

The functions whose names begin with ``html_`` escape their text arguments.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from searchae.formatting import html_text, shown_difference
from searchae.report.drawing import Plot
from searchae.report.findings import Findings, TrialRun

EMPTY_CELL = "-"
"""Text of a table cell without a value."""


@dataclass(frozen=True)
class HtmlSection:
    """A section of a page.

    Attributes:
        name: The section's HTML id.
        title: The heading; empty for none.
        body: HTML; ``html_plot`` makes the places of the figures in it.
        plots: The figures.
    """

    name: str
    title: str
    body: str
    plots: tuple[Plot, ...] = ()


def html_plot(plot: Plot, *, level: int = 3) -> str:
    """Returns the HTML of a figure: its title, an empty element that plotly fills, and its note.

    Args:
        plot: The figure.
        level: Of the heading, 1 to 6.
    """
    note = f'<p class="note">{html_text(plot.note)}</p>' if plot.note else ""
    place = ""
    if plot.figure is not None:
        place = (
            f'<div class="plot" id="{html_text(plot.name)}" role="img" '
            f'aria-label="{html_text(plot.title)}" style="height:{plot.height_px}px"></div>'
        )
    return f"<figure><h{level}>{html_text(plot.title)}</h{level}>{place}{note}</figure>"


def html_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numeric: Iterable[int] = (),
    wrap: Literal["", "words", "anywhere"] = "",
) -> str:
    """Returns an HTML table.

    Args:
        head: Column headings; empty for a table whose first column holds the headings.
        rows: The cells' texts.
        numeric: Indices of the columns to align right.
        wrap: Where long cells may break into several lines: between words, or anywhere.
    """
    right = set(numeric)

    def cell(tag: str, i: int, text: str) -> str:
        kind = ' class="n"' if i in right else ""
        return f"<{tag}{kind}>{html_text(text)}</{tag}>"

    heading = "".join(cell("th", i, t) for i, t in enumerate(head))
    lines = "".join(
        "<tr>"
        + "".join(cell("th" if not head and i == 0 else "td", i, t) for i, t in enumerate(row))
        + "</tr>"
        for row in rows
    )
    start = f"<thead><tr>{heading}</tr></thead>" if head else ""
    kind = f"scroll {wrap}" if wrap else "scroll"
    return f'<div class="{kind}"><table>{start}<tbody>{lines}</tbody></table></div>'


def gain_text(run: TrialRun, found: Findings) -> str:
    """Returns a trial's PSNR minus the baseline's, in dB, as ``+11.97``."""
    return f"{shown_difference(run.psnr_db, found.summary.baseline_db):+.2f}"


def study_command(command: str, study: str, options: str = "") -> str:
    """Returns a searchae command line for a study.

    Args:
        command: Such as ``train``.
        study: The study's name, which is quoted for the shell.
        options: Further options; empty for none.
    """
    return f"searchae {command} --study {shlex.quote(study)} {options}".rstrip()
