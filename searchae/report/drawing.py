"""Colours, markers and other parts that the report's plotly figures share.

Each colour has one meaning and is legible on light and dark backgrounds. No figure uses WebGL, so
that all of them draw in every browser and can be printed. A page may recolour the grey of text and
grid lines.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchae.formatting import format_value, one_line
from searchae.report.findings import Findings, TrialRun

COMPLETE_COLOUR, PRUNED_COLOUR, BAD_COLOUR, BEST_COLOUR = "#3b8bd1", "#c9781a", "#d8572a", "#1a9a72"
"""Distinguishable for colour-blind readers; each state also has its own marker."""
GREY, GRID = "#7d858f", "rgba(125,133,143,0.25)"


@dataclass(frozen=True)
class Plot:
    """A plotly figure with its title and a note.

    Attributes:
        name: Its id on a page, of letters, digits and hyphens.
        title: The heading, also the text for screen readers.
        note: How to read the figure and what it omits; without a figure, why there is none.
        figure: A ``plotly.graph_objects.Figure``; None if there is nothing to draw.
        height_px: Height on a page, in pixels.
    """

    name: str
    title: str
    note: str
    figure: Any = None
    height_px: int = 380


def blank_figure(*, x: str, y: str) -> Any:
    """Returns an empty plotly figure in the report's style.

    Args:
        x: Title of the horizontal axis.
        y: Title of the vertical axis.
    """
    from plotly import graph_objects

    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "ticks": "outside",
        "tickcolor": GRID,
        "automargin": True,
        "title": {"standoff": 8},
    }
    return graph_objects.Figure(
        layout={
            "template": graph_objects.layout.Template(),
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": GREY},
            "margin": {"l": 48, "r": 12, "t": 8, "b": 44},
            "xaxis": {**axis, "showgrid": False, "title": {"text": x, "standoff": 8}},
            "yaxis": {**axis, "title": {"text": y, "standoff": 8}},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "hovermode": "closest",
        }
    )


def add_markers_by_state(figure: Any, runs: Sequence[TrialRun], *, x: Any, y: Any) -> None:
    """Adds a marker for each trial, with one trace for each state.

    Args:
        figure: The plotly figure.
        runs: The trials.
        x: Function from a trial to its horizontal position.
        y: The same for its vertical position.
    """
    states = (
        ("pruned", PRUNED_COLOUR, "x-thin", lambda r: r.row.state == "pruned"),
        ("complete", COMPLETE_COLOUR, "circle", lambda r: r.is_good),
        ("ended badly", BAD_COLOUR, "triangle-down-open", lambda r: bool(r.row.outcome)),
        ("running", GREY, "circle-open", lambda r: r.row.state in ("running", "waiting")),
    )
    size = 7 if len(runs) <= 300 else 5
    for label, colour, symbol, belongs in states:
        chosen = [r for r in runs if belongs(r)]
        if not chosen:
            continue
        figure.add_scatter(
            x=[x(r) for r in chosen],
            y=[y(r) for r in chosen],
            mode="markers",
            name=label,
            opacity=0.8 if len(runs) <= 300 else 0.55,
            marker={
                "color": colour,
                "symbol": symbol,
                "size": size,
                "line": {"color": colour, "width": 0 if symbol == "circle" else 1.5},
            },
            text=[hover_text(r) for r in chosen],
            hovertemplate="%{text}<extra></extra>",
        )


def add_best_marker(figure: Any, runs: Sequence[TrialRun], *, x: Any, y: Any) -> None:
    """Adds a star for the best trial.

    Args:
        figure: The plotly figure.
        runs: The best trial; empty if there is none.
        x: Function from a trial to its horizontal position.
        y: The same for its vertical position.
    """
    for run in runs:
        figure.add_scatter(
            x=[x(run)],
            y=[y(run)],
            mode="markers",
            name="best",
            marker={"symbol": "star", "size": 14, "color": BEST_COLOUR},
            text=[hover_text(run)],
            hovertemplate="%{text}<extra></extra>",
        )


def add_baseline(figure: Any, found: Findings, xs: Iterable[float]) -> None:
    """Adds a dashed line at the baseline's PSNR.

    Args:
        figure: The plotly figure.
        found: The study's findings.
        xs: Horizontal positions that the line spans.
    """
    values = list(xs)
    figure.add_scatter(
        x=[min(values), max(values)],
        y=[found.summary.baseline_db] * 2,
        mode="lines",
        line={"color": GREY, "dash": "dash", "width": 1.5},
        name="baseline",
        hovertemplate="baseline %{y:.2f} dB<extra></extra>",
    )


def hover_text(run: TrialRun) -> str:
    """Returns the text shown when the mouse is on a trial: title and parameters."""
    lines = (escape_plotly_text(f"{name} {format_value(v)}") for name, v in run.row.params.items())
    return "<br>".join([hover_title(run), *lines])


def hover_title(run: TrialRun) -> str:
    """Returns a trial's number, state and PSNR."""
    row = run.row
    psnr = "" if row.psnr_db is None else f", {row.psnr_db:.2f} dB"
    return f"<b>trial {row.number}</b>: {escape_plotly_text(row.outcome or row.state)}{psnr}"


def escape_plotly_text(text: str) -> str:
    """Escapes text for plotly, which interprets some HTML tags; on one line."""
    return html.escape(one_line(text), quote=False)


def thin_out(runs: Sequence[TrialRun], limit: int) -> list[TrialRun]:
    """Returns at most ``limit`` of the trials, evenly spaced."""
    if len(runs) <= limit:
        return list(runs)
    return [runs[i * len(runs) // limit] for i in range(limit)]


def drawn_note(shown: int, of: int, what: str) -> str:
    """Returns a sentence about how many are drawn; empty if all are.

    Args:
        shown: How many are drawn.
        of: How many there are.
        what: What they are, in the plural.
    """
    return f" Drawn: {shown:,} of {of:,} {what}." if shown < of else ""


def join_curves(
    curves: Iterable[Mapping[float, float]],
) -> tuple[list[float | None], list[float | None]]:
    """Joins curves for one plotly trace, with gaps between them.

    A figure of hundreds of traces is slow in a browser.

    Args:
        curves: Each as value by epoch (or by another number).

    Returns:
        x and y of all points; None ends each curve.
    """
    xs: list[float | None] = []
    ys: list[float | None] = []
    for curve in curves:
        xs += [*curve, None]
        ys += [*curve.values(), None]
    return xs, ys


def add_epoch_curve(figure: Any, curve: Mapping[int, float], **style: Any) -> None:
    """Adds one curve as a trace.

    Args:
        figure: The plotly figure.
        curve: Value by epoch.
        style: Further arguments of plotly's ``add_scatter``.
    """
    # A line through a single point would be invisible.
    mode = "lines+markers" if len(curve) == 1 else "lines"
    figure.add_scatter(**{"x": list(curve), "y": list(curve.values()), "mode": mode, **style})
