"""Parts of the report for a notebook: its head as HTML, and its figures by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from searchae.errors import UserError, nearest
from searchae.formatting import html_text
from searchae.report.findings import Findings
from searchae.report.headline import found_html, tiles
from searchae.report.html_parts import html_table
from searchae.report.sections import SECTIONS

# Inherited colours and translucent greys: legible in light and dark notebooks, which have
# different ways to say which they are.
_BOX = "font: 0.95em/1.5 system-ui, sans-serif; color: inherit; max-width: 60em"
_TILES = "display: flex; flex-wrap: wrap; gap: 0.5em; margin: 0.5em 0"
_TILE = (
    "background: rgba(127, 127, 127, 0.13); border-radius: 0.4em; padding: 0.4em 0.7em; "
    "flex: 1 1 8em; margin: 0"
)
_SMALL = "font-size: 0.85em; opacity: 0.75"
_TITLE_PX = 40


def notebook_head(found: Findings) -> str:
    """Returns the key figures and what the search found, as HTML without scripts or links.

    Args:
        found: The study's findings.
    """
    summary = found.summary
    boxes = "".join(
        f'<div style="{_TILE}"><div style="{_SMALL}">{html_text(name)}</div>'
        f'<b>{html_text(value)}</b><div style="{_SMALL}">{html_text(detail)}</div></div>'
        for name, value, detail in tiles(found)
    )
    early = f"<p>The search {html_text(summary.early_end.text)}.</p>" if summary.early_end else ""
    warnings = "".join(f"<p><b>Warning:</b> {html_text(w)}</p>" for w in summary.warnings)
    where = f"{html_text(summary.study)} in {html_text(summary.storage)}"
    return (
        f'<div style="{_BOX}"><div style="{_SMALL}">{where}</div>'
        f'<div style="{_TILES}">{boxes}</div>{found_html(found)}{early}{warnings}</div>'
    )


def notebook_table(
    sentences: Sequence[str], tables: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]]
) -> str:
    """Returns sentences and tables as HTML for a notebook.

    Args:
        sentences: Each becomes a paragraph, above the tables.
        tables: Each as the texts of its head and of its rows.
    """
    said = "".join(f"<p>{html_text(text)}</p>" for text in sentences)
    shown = "".join(html_table(head, rows, numeric=range(1, len(head))) for head, rows in tables)
    return f'<div style="{_BOX}">{said}{shown}</div>'


def figure_by_name(found: Findings, name: str) -> Any:
    """Returns one of the report's figures, with its title.

    Args:
        found: The study's findings.
        name: Such as ``history``.

    Returns:
        A ``plotly.graph_objects.Figure``.

    Raises:
        UserError: There is no such figure, or nothing to draw yet.
    """
    plots = _plots(found)
    if name not in plots:
        raise UserError(f"figure {name!r}: not known. {nearest(name, plots)}")
    plot = plots[name]
    if plot.figure is None:
        raise UserError(f"figure {name!r}: {plot.note}")
    # Under a heading that says so, the page has the parameter's name alone.
    title = f"PSNR by {plot.title}" if name.startswith("slice-") else plot.title
    margin = plot.figure.layout.margin
    plot.figure.update_layout(
        title={"text": html_text(title), "x": 0, "xref": "paper", "yref": "container"},
        height=plot.height_px + _TITLE_PX,
        margin={"t": (margin.t or 0) + 2 * _TITLE_PX},
    )
    return plot.figure


def _plots(found: Findings) -> Mapping[str, Any]:
    sections = (make(found) for make in SECTIONS)
    return {plot.name: plot for s in sections if s is not None for plot in s.plots}
