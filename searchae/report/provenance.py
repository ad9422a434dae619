"""The report's last section: data, versions, machines and the study file."""

from __future__ import annotations

from collections import Counter
from html import escape

from searchae.config import study_toml
from searchae.formatting import html_text
from searchae.report.findings import Findings
from searchae.report.html_parts import EMPTY_CELL, HtmlSection, html_table, study_command


def provenance_section(found: Findings) -> HtmlSection:
    """Returns the section with what is needed to run the search again."""
    parts = found.splits
    shape = parts.get("image_shape", [])
    data = [
        ("source", found.spec.data.name),
        *(
            (name, f"{parts[name]:,} images")
            for name in ("train", "validation", "test")
            if name in parts
        ),
        *([("image", " x ".join(map(str, shape)) + " (channels, height, width)")] if shape else []),
        ("SHA-256 of the splits", found.data_hash),
    ]
    made = ", ".join(f"{k} {v}" for k, v in found.versions.items())
    body = "<h3>Data</h3>" + html_table((), data, wrap="anywhere")
    body += '<p class="note">The search reads the training and the validation split only.</p>'
    body += f"<h3>Versions</h3><p>{html_text(made) or 'not recorded'}</p>"
    body += "<h3>Machines</h3>" + _machines(found)
    body += "<h3>The study file, defaults included</h3>"
    body += f"<details><summary>{html_text(found.summary.study)}.toml</summary><pre>"
    body += f"{escape(study_toml(found.spec.document()))}</pre></details>"
    body += "<h3>To run it again</h3>"
    name = found.summary.study
    body += (
        f"<p>Save the above as <code>studies/{html_text(name)}.toml</code>, then:</p>"
        f"<pre>{escape(study_command('tune', name))} --trials {found.summary.counts.budget}</pre>"
    )
    return HtmlSection("provenance", "Where it comes from", body)


def _machines(found: Findings) -> str:
    """Returns a table of the number of trials by machine and versions.

    ``winograd`` is what a worker has; it trains the layers that these kernels fit, and PyTorch's
    own all others.
    """
    keys = (
        "host",
        "device",
        "threads",
        "precision",
        "kernels",
        "cpu",
        "python",
        "torch",
        "searchae",
    )
    counts = Counter(
        tuple(_shown(k, r.runtime.get(k, EMPTY_CELL)) for k in keys)
        for r in found.runs
        if r.runtime
    )
    if not counts:
        return "<p>Not recorded.</p>"
    rows = [(*place, f"{n:,}") for place, n in counts.most_common()]
    return html_table((*keys, "trials"), rows, numeric={2, 9})


def _shown(key: str, value: object) -> str:
    return "winograd where it fits" if (key, value) == ("kernels", "winograd") else str(value)
