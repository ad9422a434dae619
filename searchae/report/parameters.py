"""Findings -> plotly figures of the searched parameters."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from searchae.config import Parameter
from searchae.report.drawing import (
    BEST,
    COMPLETE,
    GREY,
    Plot,
    add_by_state,
    add_star,
    blank_figure,
    escaped,
    hover,
    left_out,
    log_axis,
    thinned,
)
from searchae.report.findings import Findings, Run

MOST_LINES, MOST_POINTS = 200, 1000
NOT_SAMPLED = -0.14
"""Where a trial without a value crosses a parameter's row, which goes from 0 to 1."""


def importances_plot(found: Findings) -> Plot:
    """The share of each parameter in what sets the best trials apart."""
    name, title = "importances", "Parameter importances"
    known = found.importances
    if not known.shares:
        return Plot(name, title, f"Not shown: {known.missing}.")
    figure = blank_figure(x="share", y="")
    names = list(known.shares)[::-1]
    figure.add_bar(
        x=[known.shares[n] for n in names],
        y=[escaped(n) for n in names],
        orientation="h",
        marker={"color": COMPLETE},
        text=[f"{known.shares[n]:.0%}" for n in names],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    longest = max(known.shares.values())
    figure.update_xaxes(tickformat=".0%", range=[0, longest * 1.15], nticks=6)
    figure.update_yaxes(showgrid=False, automargin=True)
    figure.update_layout(bargap=0.45)
    note = (
        f"What sets the best {known.top} of {known.trials} trials apart from all of them, by "
        "PED-ANOVA; pruned ones count with the PSNR that they had come to. The shares add up to "
        "100 %. An importance says that a parameter matters, not which value is best."
    )
    if known.trials < 50:
        note += f" From {known.trials} trials this is a rough guide."
    return Plot(name, title, note, figure, 90 + 34 * len(names))


def parallel_plot(found: Findings) -> Plot:
    """Completed trials as lines through their parameters, one row a parameter.

    Drawn as plain lines: plotly's own parallel coordinates need WebGL and a wide screen.
    """
    name, title = "parallel", "Parallel coordinates"
    space = [p for p in found.spec.space if any(p.name in r.row.params for r in found.best)]
    if len(found.best) < 2 or not space:
        return Plot(name, title, "Not shown: it takes two completed trials and a searched value.")
    best = list(found.best)
    shown = best[: MOST_LINES // 2] + thinned(best[MOST_LINES // 2 :], MOST_LINES // 2)
    low, high = shown[-1].psnr_db, shown[0].psnr_db
    rows = [*(p.name for p in space), "psnr_db"]
    figure = blank_figure(x="", y="")
    tenth, half = max(1, math.ceil(len(best) / 10)), math.ceil(len(best) / 2)
    ranked = {r.row.number: i for i, r in enumerate(best)}
    groups = (
        ("lower half", GREY, 1.0, [r for r in shown if ranked[r.row.number] >= half]),
        ("upper half", COMPLETE, 1.0, [r for r in shown if tenth <= ranked[r.row.number] < half]),
        ("best tenth", BEST, 2.5, [r for r in shown if ranked[r.row.number] < tenth]),
    )
    for label, colour, width, runs in groups:
        crowded = len(runs) > 10
        _add_lines(
            figure,
            runs,
            [[*(_place(p, r) for p in space), _share(r.psnr_db, low, high)] for r in runs],
            name=label,
            line={"color": colour, "width": 1.2 if crowded else width},
            opacity=0.85 if colour == BEST else min(0.8, max(0.45, 20 / max(1, len(runs)))),
        )
    for y, p in enumerate(space):
        _mark_row(figure, y, p.name, _marks(p), gap=_has_gap(p, shown))
    _mark_row(figure, len(space), "PSNR", [(0.0, f"{low:.1f} dB"), (1.0, f"{high:.1f} dB")])
    figure.update_xaxes(visible=False, range=[NOT_SAMPLED - 0.06, 1.06], fixedrange=True)
    figure.update_yaxes(visible=False, range=[len(space) + 0.4, -0.45], fixedrange=True)
    figure.update_layout(margin={"l": 8, "r": 8, "b": 8})
    note = (
        "Each line is a completed trial, from its parameters down to its PSNR, coloured by its "
        f"rank.{left_out(len(shown), len(best), 'trials')}"
    )
    return Plot(name, title, note, figure, 50 + 78 * len(rows))


def slice_plots(found: Findings) -> list[Plot]:
    """PSNR by the value of each parameter."""
    plots = []
    shown = thinned([r for r in found.runs if math.isfinite(r.psnr_db)], MOST_POINTS)
    values = [r.psnr_db for r in shown]
    room = 0.06 * (max(values, default=0.0) - min(values, default=0.0)) or 0.5
    # The same for all, so that heights compare.
    psnrs = [min(values, default=0.0) - room, max(values, default=0.0) + room]
    for p in found.spec.space:
        runs = [r for r in shown if p.name in r.row.params]
        if runs:
            plots.append(_slice(found, p, runs, psnrs))
    return plots


def _slice(found: Findings, p: Parameter, runs: Sequence[Run], psnrs: Sequence[float]) -> Plot:
    figure = blank_figure(x="", y="PSNR, dB")

    def x(run: Run) -> float:
        value = run.row.params[p.name]
        if not p.choices:
            return float(value)
        # Spread by the trial's number, so that the picture is the same each time.
        return p.choices.index(_as_choice(p, value)) + ((run.row.number * 0.618) % 1 - 0.5) * 0.5

    add_by_state(figure, runs, x=x, y=lambda r: r.psnr_db)
    best = [r for r in found.best[:1] if p.name in r.row.params]
    add_star(figure, best, x=x, y=lambda r: r.psnr_db)
    figure.update_traces(showlegend=False)
    if p.choices:
        figure.update_xaxes(
            tickvals=list(range(len(p.choices))),
            ticktext=[_label(c) for c in p.choices],
            range=[-0.6, len(p.choices) - 0.4],
        )
        for i, choice in enumerate(p.choices):
            values = [r.psnr_db for r in runs if r.is_good and _same(r.row.params[p.name], choice)]
            if values:
                middle = statistics.median(values)
                figure.add_scatter(
                    x=[i - 0.32, i + 0.32],
                    y=[middle] * 2,
                    mode="lines",
                    line={"color": COMPLETE, "width": 2.5},
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
    figure: Any, runs: Sequence[Run], places: Sequence[Sequence[float]], **look: Any
) -> None:
    """Lines down the rows, one a trial, as one trace with gaps between them."""
    if not runs:
        return
    rows = len(places[0])
    figure.add_scatter(
        x=[x for line in places for x in (*line, None)],
        y=[y for _ in places for y in (*range(rows), None)],
        text=[hover(r) for r in runs for _ in range(rows + 1)],
        mode="lines",
        hovertemplate="%{text}<extra></extra>",
        **look,
    )


def _share(value: float, low: float, high: float) -> float:
    """Where a value lies between two others, from 0 to 1."""
    return (value - low) / (high - low) if high > low else 0.5


def _mark_row(
    figure: Any, y: int, name: str, marks: Sequence[tuple[float, str]], *, gap: bool = False
) -> None:
    """A row of the parallel coordinates: its line, its name above, its values below."""
    figure.add_shape(
        type="line", x0=-0.03, x1=1.03, y0=y, y1=y, line={"color": GREY, "width": 1}, layer="above"
    )
    places = [*([(NOT_SAMPLED, "none")] if gap else []), *marks]
    for x, text in places:
        figure.add_annotation(
            x=x, y=y, text=escaped(text), showarrow=False, yshift=-11, font={"size": 11}
        )
    figure.add_annotation(
        x=0, y=y, text=f"<b>{escaped(name)}</b>", showarrow=False, xanchor="left", yshift=15
    )


def _marks(p: Parameter) -> list[tuple[float, str]]:
    """Where which values stand on a row."""
    if p.choices:
        last = max(1, len(p.choices) - 1)
        return [(i / last, _label(c)) for i, c in enumerate(p.choices)]
    return [(0.0, f"{p.low:g}"), (1.0, f"{p.high:g}")]


def _place(p: Parameter, run: Run) -> float:
    """Where a trial stands on a parameter's row, from 0 to 1; below 0 where it has no value."""
    if p.name not in run.row.params:
        return NOT_SAMPLED
    value = run.row.params[p.name]
    if p.choices:
        last = max(1, len(p.choices) - 1)
        spread = ((run.row.number * 0.618) % 1 - 0.5) * 0.05
        return p.choices.index(_as_choice(p, value)) / last + spread
    low, high, at = p.low, p.high, float(value)
    if p.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return _share(at, low, high)


def _has_gap(p: Parameter, runs: Sequence[Run]) -> bool:
    return any(p.name not in r.row.params for r in runs)


def _as_choice(p: Parameter, value: Any) -> Any:
    return next(c for c in p.choices if _same(value, c))


def _same(value: Any, choice: Any) -> bool:
    """Whether a trial's value, lists as lists, is that choice."""
    return _label(value) == _label(choice)


def _label(value: Any) -> str:
    if isinstance(value, tuple | list):
        return escaped("[" + ", ".join(str(v) for v in value) + "]")
    return escaped(str(value))
