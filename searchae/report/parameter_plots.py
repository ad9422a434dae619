"""Plotly figures of the searched parameters."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from typing import Any

from searchae.config import Parameter
from searchae.formatting import format_shares
from searchae.report.axes import log_axis
from searchae.report.drawing import (
    BEST_COLOUR,
    COMPLETE_COLOUR,
    GREY,
    Plot,
    add_best_marker,
    add_markers_by_state,
    blank_figure,
    drawn_note,
    escape_plotly_text,
    hover_text,
    join_curves,
    thin_out,
)
from searchae.report.findings import Findings, TrialRun

MAX_LINES, MAX_POINTS = 200, 1000
NOT_SAMPLED = -0.14
"""Position on a parameter's axis, from 0 to 1, of a trial without a value for it."""
LONGEST_LINE = 10
"""Characters of a name beside or below an axis, from which on it is folded at an underscore."""


def importances_plot(found: Findings) -> Plot:
    """Returns a bar chart of the parameters' importances."""
    name, title = "importances", "Parameter importances"
    importances = found.importances
    if not importances.shares:
        return Plot(name, title, f"No figure: {importances.missing}.")
    figure = blank_figure(x="share", y="")
    names = list(importances.shares)[::-1]
    figure.add_bar(
        x=[importances.shares[n] for n in names],
        y=[escape_plotly_text(n) for n in names],
        orientation="h",
        marker={"color": COMPLETE_COLOUR},
        text=format_shares([importances.shares[n] for n in names]),
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    longest = max(importances.shares.values())
    figure.update_xaxes(tickformat=".0%", range=[0, longest * 1.15], nticks=6)
    figure.update_yaxes(showgrid=False, automargin=True)
    figure.update_layout(bargap=0.45)
    note = (
        f"What sets the best {importances.top} of {importances.trials} trials apart from all of "
        "them, by PED-ANOVA; pruned ones count with the PSNR that they had come to. The shares add "
        "up to 100 %. An importance says that a parameter matters, not which value is best."
    )
    if importances.trials < 50:
        note += f" From {importances.trials} trials this is a rough guide."
    return Plot(name, title, note, figure, 90 + 34 * len(names))


def parallel_plot(found: Findings) -> Plot:
    """Returns a parallel coordinates plot: trials as lines down one row per parameter.

    Drawn as plain lines, because plotly's own parallel coordinates need WebGL and a wide screen.
    """
    name, title = "parallel", "Parallel coordinates"
    space = [p for p in found.spec.space if any(p.name in r.row.params for r in found.best)]
    if len(found.best) < 2 or not space:
        return Plot(name, title, "No figure: it takes two completed trials and a searched value.")
    best = list(found.best)
    shown = best[: MAX_LINES // 2] + thin_out(best[MAX_LINES // 2 :], MAX_LINES // 2)
    low, high = shown[-1].psnr_db, shown[0].psnr_db
    rows = [*(p.name for p in space), "PSNR"]
    figure = blank_figure(x="", y="")
    tenth, half = max(1, math.ceil(len(best) / 10)), math.ceil(len(best) / 2)
    ranked = {r.row.number: i for i, r in enumerate(best)}
    groups = (
        ("lower half", GREY, 1.0, [r for r in shown if ranked[r.row.number] >= half]),
        (
            "upper half",
            COMPLETE_COLOUR,
            1.0,
            [r for r in shown if tenth <= ranked[r.row.number] < half],
        ),
        ("best tenth", BEST_COLOUR, 2.5, [r for r in shown if ranked[r.row.number] < tenth]),
    )
    for label, colour, width, runs in groups:
        _add_lines(
            figure,
            runs,
            [[*(_position(p, r) for p in space), _fraction(r.psnr_db, low, high)] for r in runs],
            name=label,
            line={"color": colour, "width": 1.2 if len(runs) > 10 else width},
            opacity=0.85 if colour == BEST_COLOUR else min(0.8, max(0.45, 20 / max(1, len(runs)))),
        )
    for y, p in enumerate(space):
        _add_row_axis(figure, y, p.name, _axis_labels(p), with_missing=_has_missing(p, shown))
    _add_row_axis(figure, len(space), "PSNR", [(0.0, f"{low:.1f} dB"), (1.0, f"{high:.1f} dB")])
    figure.update_xaxes(visible=False, range=[NOT_SAMPLED - 0.06, 1.06], fixedrange=True)
    figure.update_yaxes(visible=False, range=[len(space) + 0.4, -0.45], fixedrange=True)
    figure.update_layout(margin={"l": _names_px(rows), "r": 8, "b": 8})
    note = (
        "Each line is a completed trial, from its parameters down to its PSNR, coloured by its "
        f"rank.{drawn_note(len(shown), len(best), 'trials')}"
    )
    return Plot(name, title, note, figure, 50 + 78 * len(rows))


def slice_plots(found: Findings) -> list[Plot]:
    """Returns a plot of PSNR by value for each parameter that any trial has."""
    plots = []
    shown = thin_out([r for r in found.runs if math.isfinite(r.psnr_db)], MAX_POINTS)
    values = [r.psnr_db for r in shown]
    room = 0.06 * (max(values, default=0.0) - min(values, default=0.0)) or 0.5
    # One range for all plots, so that they can be compared.
    psnrs = [min(values, default=0.0) - room, max(values, default=0.0) + room]
    for p in found.spec.space:
        runs = [r for r in shown if p.name in r.row.params]
        if runs:
            plots.append(_slice(found, p, runs, psnrs))
    return plots


def _slice(found: Findings, p: Parameter, runs: Sequence[TrialRun], psnrs: Sequence[float]) -> Plot:
    figure = blank_figure(x="", y="PSNR, dB")

    def x(run: TrialRun) -> float:
        value = run.row.params[p.name]
        if not p.choices:
            return float(value)
        return p.choices.index(_matching_choice(p, value)) + 0.5 * _jitter(run)

    add_markers_by_state(figure, runs, x=x, y=lambda r: r.psnr_db)
    best = [r for r in found.best[:1] if p.name in r.row.params]
    add_best_marker(figure, best, x=x, y=lambda r: r.psnr_db)
    figure.update_traces(showlegend=False)
    if p.choices:
        figure.update_xaxes(
            tickvals=list(range(len(p.choices))),
            ticktext=[_label(c) for c in p.choices],
            range=[-0.6, len(p.choices) - 0.4],
        )
        for i, choice in enumerate(p.choices):
            values = [
                r.psnr_db for r in runs if r.is_good and _is_choice(r.row.params[p.name], choice)
            ]
            if values:
                middle = statistics.median(values)
                figure.add_scatter(
                    x=[i - 0.32, i + 0.32],
                    y=[middle] * 2,
                    mode="lines",
                    line={"color": COMPLETE_COLOUR, "width": 2.5},
                    hovertemplate=f"median {middle:.2f} dB<extra></extra>",
                    showlegend=False,
                )
    elif p.log:
        figure.update_xaxes(**log_axis(p.low, p.high))
    else:
        room = 0.04 * (p.high - p.low) or 0.5
        figure.update_xaxes(range=[p.low - room, p.high + room])
    figure.update_yaxes(range=psnrs)
    figure.update_layout(margin={"b": 28})
    return Plot(f"slice-{p.name.replace('_', '-')}", p.name, "", figure, 240)


def _add_lines(
    figure: Any, runs: Sequence[TrialRun], positions: Sequence[Sequence[float]], **style: Any
) -> None:
    """Adds a line for each trial, as one trace.

    Args:
        figure: The plotly figure.
        runs: The trials.
        positions: For each trial its horizontal position on each row, from 0 to 1.
        style: Further arguments of plotly's ``add_scatter``.
    """
    if not runs:
        return
    ys, xs = join_curves(dict(enumerate(line)) for line in positions)
    figure.add_scatter(
        x=xs,
        y=ys,
        text=[hover_text(r) for r in runs for _ in range(len(positions[0]) + 1)],
        mode="lines",
        hovertemplate="%{text}<extra></extra>",
        **style,
    )


def _jitter(run: TrialRun) -> float:
    """Returns a pseudo-random number in [-0.5, 0.5) that is the same in each report."""
    return (run.row.number * 0.618) % 1 - 0.5


def _fraction(value: float, low: float, high: float) -> float:
    """Returns where a value lies between two others, from 0 to 1."""
    return (value - low) / (high - low) if high > low else 0.5


def _add_row_axis(
    figure: Any,
    y: int,
    name: str,
    labels: Sequence[tuple[float, str]],
    *,
    with_missing: bool = False,
) -> None:
    """Draws one axis of the parallel coordinates: name on its left, labels below."""
    figure.add_shape(
        type="line", x0=-0.03, x1=1.03, y0=y, y1=y, line={"color": GREY, "width": 1}, layer="above"
    )
    if with_missing:
        labels = [(NOT_SAMPLED, "none"), *labels]
    for x, text in labels:
        figure.add_annotation(
            x=x,
            y=y,
            text="<br>".join(_folded(text)),
            showarrow=False,
            # Those at the ends stay within the plot, however narrow it is.
            xanchor={0.0: "left", 1.0: "right"}.get(x, "center"),
            yanchor="top",
            yshift=-1,
            font={"size": 11},
        )
    figure.add_annotation(
        x=0,
        xref="paper",
        y=y,
        text=f"<b>{'<br>'.join(_folded(escape_plotly_text(name)))}</b>",
        showarrow=False,
        align="right",
        xanchor="right",
    )


def _folded(name: str) -> list[str]:
    """Returns a name in lines that end after underscores: two of them fit beside each other."""
    lines = [""]
    for part in re.findall(r"[^_]+_*|_+", name):
        if lines[-1] and len(lines[-1] + part) > LONGEST_LINE:
            lines.append("")
        lines[-1] += part
    return lines


def _names_px(names: Sequence[str]) -> int:
    """Returns the width of the names' column: a bold letter of the page's font has 7.5 pixels."""
    return 12 + math.ceil(7.5 * max(len(line) for name in names for line in _folded(name)))


def _axis_labels(p: Parameter) -> list[tuple[float, str]]:
    """Returns positions, from 0 to 1, and texts of the labels on a parameter's axis."""
    if p.choices:
        last = max(1, len(p.choices) - 1)
        return [(i / last, _label(c)) for i, c in enumerate(p.choices)]
    return [(0.0, f"{p.low:g}"), (1.0, f"{p.high:g}")]


def _position(p: Parameter, run: TrialRun) -> float:
    """Returns a trial's position on a parameter's axis, from 0 to 1; below 0 without a value."""
    if p.name not in run.row.params:
        return NOT_SAMPLED
    value = run.row.params[p.name]
    if p.choices:
        last = max(1, len(p.choices) - 1)
        return p.choices.index(_matching_choice(p, value)) / last + 0.05 * _jitter(run)
    low, high, number = p.low, p.high, float(value)
    if p.log:
        low, high, number = math.log(low), math.log(high), math.log(number)
    return _fraction(number, low, high)


def _has_missing(p: Parameter, runs: Sequence[TrialRun]) -> bool:
    return any(p.name not in r.row.params for r in runs)


def _matching_choice(p: Parameter, value: Any) -> Any:
    return next(c for c in p.choices if _is_choice(value, c))


def _is_choice(value: Any, choice: Any) -> bool:
    """Whether a trial's value is a choice; the one may be a list where the other is a tuple."""
    return _label(value) == _label(choice)


def _label(value: Any) -> str:
    if isinstance(value, tuple | list):
        return escape_plotly_text("[" + ", ".join(str(v) for v in value) + "]")
    return escape_plotly_text(str(value))
