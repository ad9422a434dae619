"""What the figures have in common: colours, axes, markers and limits.

Legible on light and on dark paper, one meaning a colour. Nothing needs WebGL, so that figures
draw, and print, everywhere. Text and grid lines are of a neutral grey; a page may recolour them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from searchae.formatting import format_value
from searchae.report.findings import Findings, Run

COMPLETE, PRUNED, BAD, BEST = "#3b8bd1", "#c9781a", "#d8572a", "#1a9a72"
"""Apart for colour-blind eyes too; each state also has a marker of its own."""
GREY, GRID = "#7d858f", "rgba(125,133,143,0.25)"


@dataclass(frozen=True)
class Plot:
    """A figure with what to say of it.

    Attributes:
        name: Its id on a page, made of letters, digits and hyphens.
        title: For people, and for those who cannot see it.
        note: How to read it; what was left out; without a figure, why there is none.
        figure: Plotly's; None where there is nothing to draw.
        height_px: On a page.
    """

    name: str
    title: str
    note: str
    figure: Any = None
    height_px: int = 380


def blank_figure(*, x: str, y: str) -> Any:
    """An empty figure with named axes."""
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


def add_by_state(figure: Any, runs: Sequence[Run], *, x: Any, y: Any) -> None:
    """Markers of trials, a trace a state."""
    states = (
        ("pruned", PRUNED, "x-thin", lambda r: r.row.state == "pruned"),
        ("complete", COMPLETE, "circle", lambda r: r.is_good),
        ("ended badly", BAD, "triangle-down-open", lambda r: bool(r.row.outcome)),
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
            text=[hover(r) for r in chosen],
            hovertemplate="%{text}<extra></extra>",
        )


def add_star(figure: Any, runs: Sequence[Run], *, x: Any, y: Any, legend: bool = True) -> None:
    """Marks the best."""
    for run in runs:
        figure.add_scatter(
            x=[x(run)],
            y=[y(run)],
            mode="markers",
            name="best",
            marker={"symbol": "star", "size": 14, "color": BEST},
            text=[hover(run)],
            hovertemplate="%{text}<extra></extra>",
            showlegend=legend,
        )


def add_baseline(figure: Any, found: Findings, xs: Iterable[float]) -> None:
    """A dashed line at the baseline, as wide as ``xs``."""
    values = list(xs)
    figure.add_scatter(
        x=[min(values), max(values)],
        y=[found.summary.baseline_db] * 2,
        mode="lines",
        line={"color": GREY, "dash": "dash", "width": 1.5},
        name="baseline",
        hovertemplate="baseline %{y:.2f} dB<extra></extra>",
    )


def hover(run: Run) -> str:
    """What a trial says of itself when it is pointed at."""
    lines = (escaped(f"{name} {format_value(v)}") for name, v in run.row.params.items())
    return "<br>".join([hover_short(run), *lines])


def hover_short(run: Run) -> str:
    """The same without parameters, for where it is repeated for each epoch."""
    row = run.row
    psnr = "" if row.psnr_db is None else f", {row.psnr_db:.2f} dB"
    return f"<b>trial {row.number}</b>: {escaped(row.outcome or row.state)}{psnr}"


def escaped(text: str) -> str:
    """Plotly reads a little HTML in its texts."""
    return html.escape(text, quote=False)


def thinned(runs: Sequence[Run], limit: int) -> list[Run]:
    """At most ``limit`` of them, at equal distances."""
    if len(runs) <= limit:
        return list(runs)
    return [runs[i * len(runs) // limit] for i in range(limit)]


def left_out(shown: int, of: int, what: str) -> str:
    """How many are drawn, if not all."""
    return f" Drawn: {shown:,} of {of:,} {what}." if shown < of else ""


def log_axis(low: float, high: float, *, steps: Sequence[int] = (1,)) -> dict[str, Any]:
    """A logarithmic axis from ``low`` to ``high``, its ticks written as numbers.

    Args:
        low: Above 0.
        high: The same.
        steps: Ticks in each decade; where there are many decades, the first one only. Where
            fewer than two of them lie in the range there are more.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1, 1 if last - first <= 4 else 2)
    ticks = [s * 10.0**d for d in decades for s in (steps if last - first <= 2 else steps[:1])]
    if sum(low <= t <= high for t in ticks) < 2:
        ticks = [s * 10.0**d for d in decades for s in (1, 2, 5)]
    if sum(low <= t <= high for t in ticks) < 2:
        ticks = _even(low, high)
    room = 0.04 * max(math.log10(high / low), 0.1)
    return {
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{t:g}" for t in ticks],
        "range": [math.log10(low) - room, math.log10(high) + room],
    }


def _even(low: float, high: float) -> list[float]:
    """Three to six round numbers at even distances; of a range too narrow for them, its start."""
    if high < low * 1.0001:
        return [low]
    decade = 10.0 ** math.floor(math.log10(high - low))
    for step in (decade * s for s in (5, 2, 1, 0.5, 0.2, 0.1)):
        ticks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(ticks) >= 3:
            return ticks
    return [low]
