"""A figure of PSNR against sparsity by the weight of the L1 penalty."""

from __future__ import annotations

import math

from searchae.compare.penalty_curve import PenaltyCurve
from searchae.report import BEST_COLOUR, COMPLETE_COLOUR, GREY, Plot, blank_figure


def curve_plot(curve: PenaltyCurve) -> Plot:
    """Returns a plot of each weight's gain in PSNR and its sparsity, with their intervals."""
    figure = blank_figure(x="Hoyer's sparsity of the latents", y="PSNR against no penalty, dB")
    front = sorted((p for p in curve.points if not p.is_dominated), key=lambda p: p.hoyer)
    figure.add_scatter(
        x=[p.hoyer for p in front],
        y=[p.gain_db for p in front],
        mode="lines",
        line={"color": BEST_COLOUR, "width": 2},
        hoverinfo="skip",
        showlegend=False,
    )
    for p in curve.points:
        label = f"{p.weight:g}" if p.weight else "no penalty"
        figure.add_scatter(
            x=[p.hoyer],
            y=[p.gain_db],
            mode="markers+text",
            text=[label],
            textposition="top center" if p.weight else "bottom center",
            marker={"color": GREY if p.is_dominated else COMPLETE_COLOUR, "size": 9},
            error_x={
                "array": [_finite(p.hoyer_high - p.hoyer)],
                "arrayminus": [_finite(p.hoyer - p.hoyer_low)],
                "color": GREY,
                "thickness": 1,
            },
            error_y={
                "array": [_finite(p.high_db - p.gain_db)],
                "arrayminus": [_finite(p.gain_db - p.low_db)],
                "color": GREY,
                "thickness": 1,
            },
            hovertemplate=(
                f"{label}: {p.gain_db:+.2f} dB, Hoyer {p.hoyer:.3f}, "
                f"{p.near_zero:.1%} near zero<extra></extra>"
            ),
            showlegend=False,
        )
    note = (
        "A point a weight; bars are 95% intervals. The line joins the front: no other weight has, "
        "in the mean, both a better PSNR and sparser latents."
    )
    return Plot("l1-curve", "PSNR against sparsity", note, figure, 420)


def _finite(length: float) -> float | None:
    """Returns the length of an error bar; None for none."""
    return length if math.isfinite(length) else None
