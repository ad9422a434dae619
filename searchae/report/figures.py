"""Plotly figures of the search and of its best trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from searchae.config import OBJECTIVES
from searchae.report.axes import epoch_axis, log_axis
from searchae.report.drawing import (
    BEST_COLOUR,
    COMPLETE_COLOUR,
    GREY,
    PRUNED_COLOUR,
    Plot,
    add_baseline,
    add_best_marker,
    add_epoch_curve,
    add_markers_by_state,
    blank_figure,
    drawn_note,
    hover_text,
    hover_title,
    join_curves,
    thin_out,
)
from searchae.report.findings import Findings, TrialRun, best_so_far

RANK_COLOURS = (BEST_COLOUR, "#7b77d1", "#b5629b", "#3f9fbf", GREY)
"""Colours of the best trials, in order."""
MOST_CURVES, MOST_POINTS = 200, 2000
TOP_TRIALS = 5


def history_plot(found: Findings) -> Plot:
    """Returns a plot of each trial's PSNR by trial number, and of the best PSNR so far."""
    name, title = "history", "PSNR by trial"
    shown = thin_out([r for r in found.runs if math.isfinite(r.psnr_db)], MOST_POINTS)
    if not shown:
        return Plot(name, title, "No trial has ended an epoch yet.")
    figure = blank_figure(x="trial", y="validation PSNR, dB")
    steps = list(zip(found.runs, best_so_far(found.runs), strict=True))
    known = [(r.row.number, best) for r, best in steps if best is not None]
    figure.add_scatter(
        x=[n for n, _ in known],
        y=[v for _, v in known],
        mode="lines",
        line={"shape": "hv", "color": BEST_COLOUR, "width": 2},
        name="best so far",
        hoverinfo="skip",
    )
    add_markers_by_state(figure, shown, x=lambda r: r.row.number, y=lambda r: r.psnr_db)
    add_baseline(figure, found, [r.row.number for r in found.runs])
    add_best_marker(figure, found.best[:1], x=lambda r: r.row.number, y=lambda r: r.psnr_db)
    note = (
        "A pruned trial stands at its PSNR when it was given up"
        + (", one that ended badly at the last one measured" if found.summary.outcomes else "")
        + f".{drawn_note(len(shown), len(found.runs), 'trials')}"
    )
    return Plot(name, title, note, figure, 420)


def front_plot(found: Findings) -> Plot:
    """Returns a plot of the second objective against the PSNR, with the Pareto front."""
    second, front = OBJECTIVES[found.spec.search.objectives[1]], found.front
    name, title = "pareto-front", f"PSNR against {second.title}"
    if not front:
        return Plot(name, title, "No trial has trained to its end yet.")

    def across(run: TrialRun) -> float:
        return run.row.values[second.name]

    figure = blank_figure(x=second.title, y="validation PSNR, dB")
    shown = thin_out([r for r in found.runs if r.row.values], MOST_POINTS)
    add_markers_by_state(figure, shown, x=across, y=lambda r: r.psnr_db)
    line = sorted(front, key=across)
    figure.add_scatter(
        x=[across(r) for r in line],
        y=[r.psnr_db for r in line],
        # With three objectives the front is a surface, of which this is one side.
        mode="lines+markers" if len(found.spec.search.objectives) == 2 else "markers",
        line={"color": BEST_COLOUR, "width": 2},
        marker={"symbol": "diamond", "size": 9, "color": BEST_COLOUR},
        name="front",
        text=[hover_text(r) for r in line],
        hovertemplate="%{text}<extra></extra>",
    )
    if second.name == "sparsity":
        figure.update_xaxes(tickformat="~%")
    note = "Green: trials that no other one dominates. " + (
        "Better is up and to the right." if second.maximize else "Better is up and to the left."
    )
    return Plot(name, title, note, figure, 420)


def curves_plot(found: Findings) -> Plot:
    """Returns a plot of PSNR by epoch of all trials, or of a sample of at most 200."""
    name, title = "curves", "PSNR by epoch"
    with_reports = [r for r in found.runs if r.reports]
    if not with_reports:
        return Plot(name, title, "No trial has ended an epoch yet.")
    top = {r.row.number for r in found.best[: MOST_CURVES // 2]}
    others = [r for r in with_reports if r.row.number not in top]
    shown = [r for r in with_reports if r.row.number in top]
    shown += thin_out(others, MOST_CURVES - len(shown))
    figure = blank_figure(x="epoch", y="validation PSNR, dB")
    opacity = min(0.7, max(0.35, 25 / len(shown)))
    pruned = [r for r in shown if r.row.state == "pruned"]
    whole = [r for r in shown if r.row.state != "pruned"]
    for label, runs, colour in (
        ("pruned", pruned, PRUNED_COLOUR),
        ("complete", whole, COMPLETE_COLOUR),
    ):
        if runs:
            width = 1.2 if len(shown) <= 60 else 0.7
            _add_curves(figure, runs, label, colour, opacity=opacity, width=width)
    if pruned:
        ends = [(r, *max(r.reports.items())) for r in pruned]
        figure.add_scatter(
            x=[e for _, e, _ in ends],
            y=[v for _, _, v in ends],
            mode="markers",
            marker={"symbol": "x-thin", "size": 6, "line": {"width": 1.5, "color": PRUNED_COLOUR}},
            opacity=min(1.0, 2 * opacity),
            text=[hover_title(r) for r, _, _ in ends],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    for run in found.best[:1]:
        _add_curves(figure, [run], "best", BEST_COLOUR, opacity=1, width=3)
    last = math.ceil(max(e for r in shown for e in r.reports))
    add_baseline(figure, found, [1, last])
    figure.update_xaxes(**epoch_axis(last))
    note = "A cross marks where the pruner gave a trial up." + drawn_note(
        len(shown), len(with_reports), "curves"
    )
    return Plot(name, title, note, figure, 420)


def losses_plot(found: Findings) -> Plot:
    """Returns a plot of the best trials' training and validation loss by epoch."""
    name, title = "losses", "Loss by epoch"
    runs = [r for r in found.best[:TOP_TRIALS] if r.history]
    if not runs:
        return Plot(name, title, "Not recorded for this study's best trials.")
    figure = blank_figure(x="epoch", y="mean squared error")
    for run, colour in zip(runs, RANK_COLOURS, strict=False):
        for column, dash in (("val_mse", "solid"), ("train_mse", "dot")):
            add_epoch_curve(
                figure,
                run.history_by_epoch(column),
                line={"color": colour, "width": 2 if dash == "solid" else 1.5, "dash": dash},
                name=f"trial {run.row.number}",
                legendgroup=str(run.row.number),
                showlegend=dash == "solid",
                hovertemplate=f"trial {run.row.number}, epoch %{{x}}<br>"
                f"{column} %{{y:.3g}}<extra></extra>",
            )
    figure.update_xaxes(**epoch_axis(max(len(r.history["val_mse"]) for r in runs)))
    values = [v for r in runs for c in ("val_mse", "train_mse") for v in r.history[c]]
    figure.update_yaxes(**log_axis(min(values), max(values)))
    note = "Solid: validation. Dotted: training, taken while the weights changed."
    return Plot(name, title, note, figure)


def sparsity_plot(found: Findings) -> Plot:
    """Returns a plot of the share of near-zero latents by epoch, for the best trials."""
    name, title = "sparsity", "Sparsity by epoch"
    runs = [r for r in found.best[:TOP_TRIALS] if r.history]
    if not runs:
        return Plot(name, title, "Not recorded for this study's best trials.")
    figure = blank_figure(x="epoch", y="share near zero")
    for run, colour in zip(runs, RANK_COLOURS, strict=False):
        add_epoch_curve(
            figure,
            run.history_by_epoch("sparsity"),
            line={"color": colour, "width": 2},
            name=f"trial {run.row.number}",
            hovertemplate=f"trial {run.row.number}, epoch %{{x}}<br>%{{y:.1%}}<extra></extra>",
        )
    figure.update_xaxes(**epoch_axis(max(len(r.history["sparsity"]) for r in runs)))
    figure.update_yaxes(tickformat="~%", rangemode="tozero")
    return Plot(name, title, "Share of latents (or weights) below 0.001 in magnitude.", figure)


def _add_curves(
    figure: Any, runs: Sequence[TrialRun], label: str, colour: str, *, opacity: float, width: float
) -> None:
    """Adds the PSNR curves of trials of one kind as one trace."""
    xs, ys = join_curves(r.reports for r in runs)
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines+markers" if max(len(r.reports) for r in runs) == 1 else "lines",
        line={"color": colour, "width": width},
        opacity=opacity,
        name=label,
        text=[hover_title(r) for r in runs for _ in range(len(r.reports) + 1)],
        hovertemplate="%{text}<br>epoch %{x}: %{y:.2f} dB<extra></extra>",
    )
