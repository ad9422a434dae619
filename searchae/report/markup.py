"""Pieces of the report's HTML. Whatever text they are given is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from searchae.report.drawing import Plot

NONE = "-"
"""In a table, where there is nothing."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: Its heading; empty for the first.
        body: HTML, in which ``plot`` has left places for figures.
        plots: Those figures.
    """

    name: str
    title: str
    body: str
    plots: tuple[Plot, ...] = ()


def plot(p: Plot, *, level: int = 3) -> str:
    """The place of a figure, with its title and how to read it."""
    note = f'<p class="note">{escape(p.note)}</p>' if p.note else ""
    place = ""
    if p.figure is not None:
        place = (
            f'<div class="plot" id="{escape(p.name)}" role="img" '
            f'aria-label="{escape(p.title)}" style="height:{p.height_px}px"></div>'
        )
    return f"<figure><h{level}>{escape(p.title)}</h{level}>{place}{note}</figure>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numeric: Iterable[int] = (),
    wrap: bool = False,
) -> str:
    """A table of texts, which are escaped here; ``numeric`` columns stand to the right."""
    right = set(numeric)

    def cell(tag: str, i: int, text: str) -> str:
        kind = ' class="n"' if i in right else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    heading = "".join(cell("th", i, t) for i, t in enumerate(head))
    lines = "".join(
        "<tr>"
        + "".join(cell("th" if not head and i == 0 else "td", i, t) for i, t in enumerate(row))
        + "</tr>"
        for row in rows
    )
    start = f"<thead><tr>{heading}</tr></thead>" if head else ""
    kind = "scroll wrap" if wrap else "scroll"
    return f'<div class="{kind}"><table>{start}<tbody>{lines}</tbody></table></div>'
