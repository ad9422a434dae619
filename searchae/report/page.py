"""The report as one self-contained HTML file, which needs no network and no server."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from searchae.files import output_file
from searchae.formatting import html_text
from searchae.report.findings import Findings
from searchae.report.html_parts import HtmlSection
from searchae.report.sections import SECTIONS

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
"""Content security policy: the page may not load anything from elsewhere."""


def report_page(
    found: Findings, sections: Sequence[Callable[[Findings], HtmlSection | None]] = SECTIONS
) -> str:
    """Returns the report as an HTML document, about 5 MB, nearly all of it plotly's script.

    Args:
        found: The study's findings.
        sections: Functions that make the sections, in order; one may return None for no section.
    """
    parts = [s for s in (make(found) for make in sections) if s is not None]
    return html_document(parts, heading=found.summary.study, brand="searchae report")


def html_document(sections: Sequence[HtmlSection], *, heading: str, brand: str) -> str:
    """Returns a complete HTML document.

    Args:
        sections: The sections, in order.
        heading: The heading: what the document is about.
        brand: The line above the heading: which command made the document.
    """
    from plotly.offline import get_plotlyjs

    charts = {
        p.name: json.loads(p.figure.to_json())
        for s in sections
        for p in s.plots
        if p.figure is not None
    }
    title = f"searchae: {heading}"
    package = files("searchae.report")
    links = "".join(f'<a href="#{s.name}">{html_text(s.title)}</a>' for s in sections if s.title)
    body = "\n".join(_section(s) for s in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{html_text(title)}</title>
<link rel="icon" href="data:,">
<style>
{(package / "page.css").read_text(encoding="utf-8")}
</style>
</head>
<body>
<header><p class="brand">{html_text(brand)}</p><h1>{html_text(heading)}</h1></header>
<nav aria-label="Sections">{links}</nav>
<main>
{body}
</main>
<noscript><p class="warning">The plots need JavaScript.</p></noscript>
<script type="application/json" id="charts">{_script_json(charts)}</script>
<script>{get_plotlyjs()}</script>
<script>
{(package / "page.js").read_text(encoding="utf-8")}
</script>
</body>
</html>
"""


def write_report(path: Path, found: Findings) -> None:
    """Writes the report atomically.

    Args:
        path: The file.
        found: The study's findings.

    Raises:
        OSError: The file cannot be written.
    """
    content = report_page(found).encode()
    with output_file(path) as file:
        file.write(content)


def _section(section: HtmlSection) -> str:
    heading = f"<h2>{html_text(section.title)}</h2>\n" if section.title else ""
    return f'<section id="{html_text(section.name)}">\n{heading}{section.body}\n</section>'


def _script_json(document: object) -> str:
    """Returns JSON that is safe inside a ``<script>`` element."""
    return json.dumps(document, allow_nan=False).replace("<", "\\u003c")
