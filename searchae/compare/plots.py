"""Plotly figures of a comparison, and a picture of the sides' reconstructions."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.compare.training_record import TrainingRecord, shown_indices
from searchae.compare.verdict import SideFigures, TrainingRecords, Verdict
from searchae.report import (
    BAD_COLOUR,
    BEST_COLOUR,
    COMPLETE_COLOUR,
    GREY,
    PRUNED_COLOUR,
    Plot,
    blank_figure,
    epoch_axis,
    escape_plotly_text,
    join_curves,
    log_axis,
)

COLOURS = (COMPLETE_COLOUR, PRUNED_COLOUR, BEST_COLOUR, "#b5629b", "#7b77d1", BAD_COLOUR, GREY)
"""Colours of the sides, in order; distinguishable for colour-blind readers."""
_TILE_PX, _GUTTER_PX, _LABEL_PX, _MARGIN_PX = 96, 6, 20, 12

ByteImages = npt.NDArray[np.uint8]


def trainings_plot(verdict: Verdict, trained: TrainingRecords) -> Plot:
    """Returns a plot of each training's PSNR on the test split, with one row per side."""
    name, title = f"{verdict.parameter}-trainings", "PSNR of each training on the test split"
    figure = blank_figure(x="test PSNR, dB", y="")
    symbols = ("circle", "diamond", "square", "triangle-up", "cross", "star", "pentagon")
    for i, side in enumerate(verdict.sides):
        keys = [(t, s) for t in side.trials for s in verdict.seeds]
        # Seeds are offset a little, so that equal values do not cover each other.
        spread = [verdict.seeds.index(s) - (len(verdict.seeds) - 1) / 2 for _, s in keys]
        figure.add_scatter(
            x=[float(trained[k].psnr_db.mean()) for k in keys],
            y=[-i + 0.18 * d / max(1, len(verdict.seeds)) for d in spread],
            mode="markers",
            marker={
                "color": COLOURS[i % len(COLOURS)],
                "size": 9,
                "opacity": 0.8,
                "symbol": [symbols[side.trials.index(t) % len(symbols)] for t, _ in keys],
            },
            text=[f"{escape_plotly_text(side.name)}<br>trial {t}, seed {s}" for t, s in keys],
            hovertemplate="%{text}: %{x:.2f} dB<extra></extra>",
            showlegend=False,
        )
        figure.add_scatter(
            x=[side.psnr_db] * 2,
            y=[-i - 0.3, -i + 0.3],
            mode="lines",
            line={"color": COLOURS[i % len(COLOURS)], "width": 3},
            hovertemplate=f"{escape_plotly_text(side.name)}: mean %{{x:.2f}} dB<extra></extra>",
            showlegend=False,
        )
    _label_rows(figure, [s.name for s in verdict.sides])
    note = "A symbol a trial, a row's points its seeds; the line is the mean of the side."
    return Plot(name, title, note, figure, 110 + 62 * len(verdict.sides))


def intervals_plot(verdict: Verdict) -> Plot:
    """Returns a plot of each side's difference from the best, with its interval."""
    name, title = f"{verdict.parameter}-intervals", "Difference, with its interval"
    best = verdict.sides[0].name
    pairs = verdict.against_best
    figure = blank_figure(x=f"PSNR of {escape_plotly_text(best)} minus that of the other, dB", y="")
    for i, p in enumerate(pairs):
        colour = BEST_COLOUR if p.shown else GREY
        figure.add_scatter(
            x=[p.mean_db],
            y=[-i],
            mode="markers",
            marker={"color": colour, "size": 10, "symbol": "circle" if p.shown else "circle-open"},
            error_x={
                "array": [p.high_db - p.mean_db],
                "arrayminus": [p.mean_db - p.low_db],
                "color": colour,
                "thickness": 2,
            },
            text=[f"{p.mean_db:.2f} dB, {p.low_db:.2f} to {p.high_db:.2f}"],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    figure.add_vline(x=0, line={"color": GREY, "width": 1.5, "dash": "dash"})
    _label_rows(figure, [f"to {verdict.sides[p.second].name}" for p in pairs])
    several = len(verdict.sides) > 2
    note = (
        f"Left of the dashed line {best} is worse, right of it better. Filled and green: the "
        "interval leaves out 0, a difference is shown."
        + (" The intervals hold for all pairs at once, by Holm's correction." if several else "")
    )
    return Plot(name, title, note, figure, 110 + 50 * len(pairs))


def losses_plot(verdict: Verdict, trained: TrainingRecords) -> Plot:
    """Returns a plot of validation loss by epoch: faint per training, bold for each side's mean."""
    name, title = f"{verdict.parameter}-losses", "Validation loss by epoch"
    figure = blank_figure(x="epoch", y="mean squared error")
    lowest, highest = np.inf, 0.0
    means = []
    for i, side in enumerate(verdict.sides):
        colour = COLOURS[i % len(COLOURS)]
        curves = _curves(side, verdict.seeds, trained)
        if not curves:
            continue
        xs, ys = join_curves(dict(enumerate(curve, 1)) for curve in curves)
        lowest = min(lowest, *(min(c) for c in curves))
        highest = max(highest, *(max(c) for c in curves))
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"color": colour, "width": 1},
            opacity=0.35,
            hoverinfo="skip",
            showlegend=False,
        )
        means.append((side.name, colour, _mean_curve(curves)))
    for label, colour, mean in means:
        figure.add_scatter(
            x=list(range(1, len(mean) + 1)),
            y=mean,
            mode="lines+markers" if len(mean) < 12 else "lines",
            line={"color": colour, "width": 3},
            name=escape_plotly_text(label),
            hovertemplate=f"{escape_plotly_text(label)}: mean %{{y:.2e}}<extra></extra>",
        )
    if not means:
        return Plot(name, title, "No training came to the end of an epoch.")
    figure.update_yaxes(**log_axis(max(float(lowest), 1e-12), highest))
    longest = max(len(m) for _, _, m in means)
    figure.update_xaxes(**epoch_axis(longest))
    note = (
        "Faint: each training; bold: the mean of the side, in which a training that ended early "
        "keeps its last value."
    )
    return Plot(name, title, note, figure, 400)


def reconstructions_plot(verdict: Verdict, trained: TrainingRecords, originals: ByteImages) -> str:
    """Returns a PNG, in base64, of test images and each side's reconstructions of them.

    Args:
        verdict: The sides.
        trained: Their trainings.
        originals: uint8 (n, C, H, W), the images whose reconstructions were stored.
    """
    rows: list[tuple[str, ByteImages, list[str]]] = [("original", originals, [])]
    for side in verdict.sides:
        record = trained[side.trials[0], verdict.seeds[0]]
        rows.append((side.name, record.pictures, _psnr_texts(record)))
    return base64.b64encode(_draw_rows(rows)).decode()


def _psnr_texts(record: TrainingRecord) -> list[str]:
    return [f"{record.psnr_db[i]:.1f} dB" for i in shown_indices(len(record.psnr_db))]


def _draw_rows(rows: Sequence[tuple[str, ByteImages, list[str]]]) -> bytes:
    """Returns a PNG with a row of images for each entry: name, images (N, C, H, W), captions."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    names_px = 16 + max(int(font.getlength(name)) for name, _, _ in rows)
    count, _, height, width = rows[0][1].shape
    scale = max(1, round(_TILE_PX / width))
    tile = (height * scale, width * scale)
    row_px = tile[0] + _GUTTER_PX + _LABEL_PX
    size = (
        2 * _MARGIN_PX + names_px + count * (tile[1] + _GUTTER_PX),
        2 * _MARGIN_PX + len(rows) * row_px - _LABEL_PX,
    )
    canvas = Image.new("RGB", (size[0], size[1] + _LABEL_PX), (255, 255, 255))
    pen, ink = ImageDraw.Draw(canvas), (40, 40, 40)
    y = _MARGIN_PX
    for name, images, texts in rows:
        pen.text((_MARGIN_PX, y + tile[0] // 2), name, fill=ink, font=font, anchor="lm")
        for i, image in enumerate(images):
            x = _MARGIN_PX + names_px + i * (tile[1] + _GUTTER_PX)
            pixels = np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3))
            large = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            canvas.paste(Image.fromarray(np.ascontiguousarray(large)), (x, y))
            if texts:
                at = (x + tile[1] // 2, y + tile[0] + 3)
                pen.text(at, texts[i], fill=ink, font=font, anchor="ma")
        y += row_px if texts else tile[0] + _GUTTER_PX
    file = io.BytesIO()
    canvas.crop((0, 0, size[0], y + _MARGIN_PX)).save(file, format="PNG")
    return file.getvalue()


def _curves(side: SideFigures, seeds: Sequence[int], trained: TrainingRecords) -> list[list[float]]:
    records = [trained[t, s] for t in side.trials for s in seeds]
    return [[r.val_mse for r in record.history] for record in records if record.history]


def _mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    longest = max(map(len, curves))
    kept = [[*c, *[c[-1]] * (longest - len(c))] for c in curves]
    return [float(v) for v in np.mean(kept, axis=0)]


def _label_rows(figure: Any, names: Sequence[str]) -> None:
    figure.update_yaxes(
        tickvals=[-i for i in range(len(names))],
        ticktext=[escape_plotly_text(n) for n in names],
        range=[-len(names) + 0.5, 0.5],
        showgrid=False,
    )
