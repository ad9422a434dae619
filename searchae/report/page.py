"""Findings -> one HTML file that needs nothing else: no network, no folder, no server."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from searchae.files import atomic_file
from searchae.report.findings import Findings
from searchae.report.markup import Section
from searchae.report.sections import SECTIONS

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
"""For the browser: whatever the page holds, it may not ask anybody for anything."""


def report_page(
    found: Findings, sections: Sequence[Callable[[Findings], Section | None]] = SECTIONS
) -> str:
    """The report.

    Args:
        found: What it says.
        sections: Its parts, in order.

    Returns:
        A whole HTML document, about 5 MB, nearly all of it plotly's script.
    """
    parts = [s for s in (make(found) for make in sections) if s is not None]
    return document(parts, heading=found.summary.study, brand="searchae report")


def document(parts: Sequence[Section], *, heading: str, brand: str) -> str:
    """A whole HTML document of sections.

    Args:
        parts: In order.
        heading: What it is about.
        brand: A line above it: what the document is.
    """
    from plotly.offline import get_plotlyjs

    charts = {
        p.name: json.loads(p.figure.to_json())
        for s in parts
        for p in s.plots
        if p.figure is not None
    }
    title = f"searchae: {heading}"
    here = files("searchae.report")
    links = "".join(f'<a href="#{s.name}">{escape(s.title)}</a>' for s in parts if s.title)
    body = "\n".join(_section(s) for s in parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{(here / "page.css").read_text(encoding="utf-8")}
</style>
</head>
<body>
<header><p class="brand">{escape(brand)}</p><h1>{escape(heading)}</h1></header>
<nav aria-label="Sections">{links}</nav>
<main>
{body}
</main>
<noscript><p class="warning">The plots need JavaScript.</p></noscript>
<script type="application/json" id="charts">{_for_script(charts)}</script>
<script>{get_plotlyjs()}</script>
<script>
{(here / "page.js").read_text(encoding="utf-8")}
</script>
</body>
</html>
"""


def write_report(path: Path, found: Findings) -> None:
    """Writes the report, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    content = report_page(found).encode()
    with atomic_file(path) as file:
        file.write(content)


def _section(section: Section) -> str:
    heading = f"<h2>{escape(section.title)}</h2>\n" if section.title else ""
    return f'<section id="{escape(section.name)}">\n{heading}{section.body}\n</section>'


def _for_script(document: object) -> str:
    """JSON in which no text can end the script that it stands in."""
    return json.dumps(document, allow_nan=False).replace("<", "\\u003c")
