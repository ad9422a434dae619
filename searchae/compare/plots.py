"""Plotly figures of a comparison, and a picture of the choices' reconstructions."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.compare.matched_statistics import BaseDifference, PairDifference
from searchae.compare.verdict import Verdict, span_text
from searchae.data import as_rgb
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
from searchae.worker import TrainingRecord, shown_indices

COLOURS = (COMPLETE_COLOUR, PRUNED_COLOUR, BEST_COLOUR, "#b5629b", "#7b77d1", BAD_COLOUR, GREY)
"""Colours of the choices, in order; distinguishable for colour-blind readers."""
WIDE_LABEL, NARROW_LABEL = 48, 30
"""Characters of a line of a row's label, in a figure as wide as the page and in half of it."""
FAR_DB = 5.0
"""A difference that is shown to be larger is written as a number, where others are smaller."""
_LINE_PX = 14
_TILE_PX, _GUTTER_PX, _LABEL_PX, _MARGIN_PX = 96, 6, 20, 12

ByteImages = npt.NDArray[np.uint8]


def effects_plot(verdict: Verdict) -> Plot:
    """Returns a plot of each choice's difference from the best: over all bases, and by base."""
    name, title = f"{verdict.parameter}-effects", f"{verdict.best.name} against the others"
    best = escape_plotly_text(verdict.best.name)
    figure = blank_figure(x=f"{best} minus the other, dB", y="")
    labels: list[str] = []
    far = _far(verdict)
    for choice, p in verdict.against_best:
        sign = 1 if p.first == verdict.statistics.best else -1
        if choice in far:
            _write_beyond(figure, sign * p.mean_db, at=-len(labels))
            labels.append(verdict.choices[choice].name)
            continue
        rows: list[tuple[str, PairDifference | BaseDifference, bool]]
        rows = [(verdict.choices[choice].name, p, p.shown)]
        rows += [(f"in {verdict.bases[b.base]}", b, False) for b in p.by_base]
        for place, (label, found, shown) in enumerate(rows):
            low, high = sorted((sign * found.low_db, sign * found.high_db))
            mean, is_all = sign * found.mean_db, place == 0
            figure.add_scatter(
                x=[mean],
                y=[-len(labels)],
                mode="markers",
                marker={
                    "color": BEST_COLOUR if shown else GREY,
                    "size": 11 if is_all else 6,
                    "symbol": "circle" if shown or not is_all else "circle-open",
                },
                error_x={
                    "array": [high - mean if np.isfinite(high) else None],
                    "arrayminus": [mean - low if np.isfinite(low) else None],
                    "color": BEST_COLOUR if shown else GREY,
                    "thickness": 2.5 if is_all else 1,
                },
                text=[f"{escape_plotly_text(label)}: {mean:.2f} dB, {span_text(low, high)}"],
                hovertemplate="%{text}<extra></extra>",
                showlegend=False,
            )
            labels.append(label)
    figure.add_vline(x=0, line={"color": GREY, "width": 1.5, "dash": "dash"})
    lines = _label_rows(figure, labels, width=WIDE_LABEL)
    note = (
        f"Right of the dashed line {verdict.best.name} is better, left of it worse. Large: the "
        "mean over the bases in which both train; filled and green where a difference is shown. "
        "Small: each base by itself, with intervals that hold for all bases at once."
        + (f" More than {FAR_DB:g} dB away: as a number." if far else "")
    )
    return Plot(name, title, note, figure, 110 + (20 + _LINE_PX * lines) * len(labels))


def _far(verdict: Verdict) -> set[int]:
    """Returns the choices that would press the others' intervals into a line; never all."""
    ends = {c: (abs(p.low_db), abs(p.high_db)) for c, p in verdict.against_best if p.shown}
    far = {choice for choice, both in ends.items() if min(both) > FAR_DB}
    return far if len(far) < len(verdict.against_best) else set()


def _write_beyond(figure: Any, mean_db: float, *, at: int) -> None:
    """Writes a difference as a number, in the row at a height, in the place of a point."""
    figure.add_annotation(
        xref="paper",
        x=1 if mean_db > 0 else 0,
        xanchor="right" if mean_db > 0 else "left",
        y=at,
        text=f"{mean_db:.1f} dB →" if mean_db > 0 else f"← {mean_db:.1f} dB",
        showarrow=False,
    )


def trainings_plot(verdict: Verdict) -> Plot:
    """Returns a plot of each training's PSNR on the test split: a row per choice and base."""
    name, title = f"{verdict.parameter}-trainings", "PSNR of each training on the test split"
    figure = blank_figure(x="test PSNR, dB", y="")
    labels: list[str] = []
    for place, choice in enumerate(verdict.order):
        label = escape_plotly_text(verdict.choices[choice].name)
        colour = COLOURS[place % len(COLOURS)]
        for base, cell in zip(verdict.bases, verdict.cells[choice], strict=True):
            figure.add_scatter(
                x=list(cell.psnr_db),
                y=[-len(labels)] * len(cell.psnr_db),
                mode="markers",
                marker={"color": colour, "size": 8, "opacity": 0.75},
                text=[
                    f"{label}<br>{escape_plotly_text(base)}, seed {r.seed}" for r in cell.records
                ],
                hovertemplate="%{text}: %{x:.2f} dB<extra></extra>",
                showlegend=False,
            )
            labels.append(f"{verdict.choices[choice].name} in {base}")
    lines = _label_rows(figure, labels, width=NARROW_LABEL)
    note = "A row for each choice in each base; its points are the seeds."
    return Plot(name, title, note, figure, 110 + (10 + _LINE_PX * lines) * len(labels))


def losses_plot(verdict: Verdict) -> Plot:
    """Returns a plot of validation loss by epoch: faint per training, bold for a choice's mean."""
    name, title = f"{verdict.parameter}-losses", "Validation loss by epoch"
    figure = blank_figure(x="epoch", y="mean squared error")
    lowest, highest = np.inf, 0.0
    means = []
    for i, choice in enumerate(verdict.order):
        colour = COLOURS[i % len(COLOURS)]
        curves = _curves([r for cell in verdict.cells[choice] for r in cell.records])
        counted = _curves([r for cell in verdict.common_cells(choice) for r in cell.counted])
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
        if counted:
            means.append((verdict.choices[choice].name, colour, _mean_curve(counted)))
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
        "Faint: each training; bold: the mean of the choice over the trainings of the table, in "
        "which one that ended early keeps its last value."
    )
    return Plot(name, title, note, figure, 400)


def reconstructions_plot(verdict: Verdict, originals: ByteImages) -> str:
    """Returns a PNG, in base64, of test images and each choice's reconstructions of them.

    Args:
        verdict: The result; the first base and seed are shown.
        originals: uint8 (n, C, H, W), the images whose reconstructions were stored.
    """
    rows: list[tuple[str, ByteImages, list[str]]] = [("original", originals, [])]
    for choice in verdict.order:
        record = verdict.cells[choice][0].records[0]
        rows.append((verdict.choices[choice].name, record.pictures, _psnr_texts(record)))
    return base64.b64encode(_draw_rows(rows)).decode()


def _psnr_texts(record: TrainingRecord) -> list[str]:
    return [f"{record.psnr_db[i]:.1f} dB" for i in shown_indices(len(record.psnr_db))]


def _draw_rows(rows: Sequence[tuple[str, ByteImages, list[str]]]) -> bytes:
    """Returns a PNG with a row of images for each entry: name, images (N, C, H, W), captions."""
    from PIL import Image, ImageDraw, ImageFont

    from searchae.training import INK, blank_picture

    font = ImageFont.load_default(13)
    names_px = 16 + max(int(font.getlength(name)) for name, _, _ in rows)
    count, _, height, width = rows[0][1].shape
    scale = max(1, round(_TILE_PX / max(height, width)))
    tile = (height * scale, width * scale)
    row_px = tile[0] + _GUTTER_PX + _LABEL_PX
    size = (
        2 * _MARGIN_PX + names_px + count * (tile[1] + _GUTTER_PX),
        2 * _MARGIN_PX + len(rows) * row_px - _LABEL_PX,
    )
    canvas = blank_picture((size[0], size[1] + _LABEL_PX))
    pen = ImageDraw.Draw(canvas)
    y = _MARGIN_PX
    for name, images, texts in rows:
        pen.text((_MARGIN_PX, y + tile[0] // 2), name, fill=INK, font=font, anchor="lm")
        for i, image in enumerate(images):
            x = _MARGIN_PX + names_px + i * (tile[1] + _GUTTER_PX)
            large = as_rgb(image).repeat(scale, axis=0).repeat(scale, axis=1)
            canvas.paste(Image.fromarray(large), (x, y))
            if texts:
                at = (x + tile[1] // 2, y + tile[0] + 3)
                pen.text(at, texts[i], fill=INK, font=font, anchor="ma")
        y += row_px if texts else tile[0] + _GUTTER_PX
    file = io.BytesIO()
    canvas.crop((0, 0, size[0], y + _MARGIN_PX)).save(file, format="PNG")
    return file.getvalue()


def _curves(records: Sequence[TrainingRecord]) -> list[list[float]]:
    return [[r.val_mse for r in record.history] for record in records if record.history]


def _mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    longest = max(map(len, curves))
    kept = [[*c, *[c[-1]] * (longest - len(c))] for c in curves]
    return [float(v) for v in np.mean(kept, axis=0)]


def _label_rows(figure: Any, names: Sequence[str], *, width: int) -> int:
    """Labels the rows of a figure, long names on several lines; returns the most lines of one.

    Plotly cuts off what is wider than half of a figure, and leaves the points little room.
    """
    # A list, such as the widths of layers, stays on one line.
    joined = (n.replace(", ", ",\N{NO-BREAK SPACE}") for n in names)
    wrapped = [
        textwrap.wrap(n, width, break_on_hyphens=False, break_long_words=False) for n in joined
    ]
    figure.update_yaxes(
        tickvals=[-i for i in range(len(names))],
        ticktext=["<br>".join(map(escape_plotly_text, lines)) for lines in wrapped],
        range=[-len(names) + 0.5, 0.5],
        showgrid=False,
    )
    return max(map(len, wrapped), default=1)
