"""A trial's PSNR and losses by epoch as an SVG image, with the best trial and the baseline.

The SVG is written directly, because it is drawn again for each page: a plotting library would take
longer. It contains no text that users wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from searchae.report import (
    BAD_COLOUR,
    BEST_COLOUR,
    COMPLETE_COLOUR,
    GREY,
    PRUNED_COLOUR,
    TrialRun,
    linear_ticks,
    log_ticks,
)

WIDTH, HEIGHT = 420, 270
"""Size of one panel, in pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 46, 38
_MAX_TICKS = 6


@dataclass(frozen=True)
class _Line:
    """A curve: value by epoch, and its style."""

    label: str
    points: Mapping[float, float] | Mapping[int, float]
    colour: str
    width: float
    dash: str = ""


def draw_curves(run: TrialRun, *, best: TrialRun | None, baseline_db: float) -> str:
    """Returns an SVG image with a panel for PSNR and, if there is a history, one for losses.

    Args:
        run: The trial.
        best: The study's best trial; None if there is none yet.
        baseline_db: PSNR of the mean training image, in dB.
    """
    is_best = best is not None and best.row.number == run.row.number
    colour = BEST_COLOUR if is_best else COMPLETE_COLOUR
    if not is_best and run.row.state == "pruned":
        colour = PRUNED_COLOUR
    if run.row.outcome:
        colour = BAD_COLOUR
    own = _Line(f"trial {run.row.number}", run.reports, colour, 2.5)
    other = best if best is not None and not is_best else None
    epochs = [1, *run.reports, *(other.reports if other else ())]
    ends = {min(epochs): baseline_db, max(epochs): baseline_db}
    lines = [own, _Line("baseline", ends, GREY, 1.5, "5 4")]
    if other is not None:
        lines.append(_Line(f"best: trial {other.row.number}", other.reports, BEST_COLOUR, 1.5))
    panels = [_panel("validation PSNR, dB", lines, log=False)]
    if run.history:
        lines = [
            _Line("validation", run.history_by_epoch("val_mse"), colour, 2.5),
            _Line("training (dotted)", run.history_by_epoch("train_mse"), colour, 1.5, "2 3"),
        ]
        if other is not None and other.history:
            lines.append(
                _Line("the best's validation", other.history_by_epoch("val_mse"), BEST_COLOUR, 1.5)
            )
        panels.append(_panel("mean squared error", lines, log=True))
    width = WIDTH * len(panels)
    body = "".join(
        f'<g transform="translate({WIDTH * i},0)">{panel}</g>' for i, panel in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" '
        f'viewBox="0 0 {width} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12" '
        f'fill="{GREY}">{body}</svg>'
    )


def _panel(title: str, lines: Sequence[_Line], *, log: bool) -> str:
    values = [v for line in lines for v in line.points.values() if v > 0 or not log]
    epochs: list[float] = [e for line in lines for e in line.points]
    first, last = min([1.0, *epochs]), max([1.0, *epochs])
    if not values:
        return _text(WIDTH / 2, HEIGHT / 2, "nothing to draw", "middle")
    xs = _Axis(first, max(last, 2), _LEFT, WIDTH - _RIGHT)
    margin = (max(values) - min(values)) * 0.05 or 0.5
    low, high = min(values) - margin, max(values) + margin
    if log:
        low, high = min(values) / 1.08, max(values) * 1.08
    ys = _Axis(low, high, HEIGHT - _BOTTOM, _TOP, log=log)
    parts = [_text(_LEFT, 16, title, weight="600")]
    for tick in ys.ticks():
        y = ys.position(tick)
        parts.append(
            f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="{GREY}" stroke-opacity=".25"/>'
        )
        parts.append(_text(_LEFT - 7, y + 4, f"{tick:g}", "end"))
    parts += [
        _text(xs.position(t), HEIGHT - _BOTTOM + 18, f"{t:g}", "middle")
        for t in xs.ticks()
        if t == int(t) and t <= last
    ]
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4, "epoch", "middle"))
    x = float(_LEFT)
    for line in lines:
        parts.append(_text(x, 34, line.label, colour=line.colour))
        x += 7.0 * len(line.label) + 14
    parts += [_path(line, xs, ys, log=log) for line in reversed(lines)]
    return "".join(parts)


def _path(line: _Line, xs: _Axis, ys: _Axis, *, log: bool) -> str:
    points = [
        (xs.position(e), ys.position(v)) for e, v in sorted(line.points.items()) if v > 0 or not log
    ]
    if not points:
        return ""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
    text = (
        f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="{line.width}"'
        f'{dash} stroke-linejoin="round"/>'
    )
    x, y = points[-1]
    if line.colour != GREY:
        text += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{line.width + 0.7}" fill="{line.colour}"/>'
    return text


def _text(
    x: float, y: float, text: str, anchor: str = "start", *, colour: str = GREY, weight: str = "400"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{text}</text>'
    )


@dataclass(frozen=True)
class _Axis:
    """Maps values from ``low`` to ``high`` to pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def position(self, value: float) -> float:
        """Returns a value's position in pixels."""
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        find = log_ticks if self.log else linear_ticks
        return find(self.low, self.high, at_most=_MAX_TICKS)
