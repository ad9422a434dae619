"""A trial's curves as SVG: its PSNR beside the best trial's and the baseline, and its losses.

By hand, since it is drawn for every page that is looked at: no library that draws needs to be
loaded. Nothing but numbers goes into it. Text is of a grey that is legible on light and on dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from searchae.report import BAD, BEST, COMPLETE, GREY, PRUNED, Run

WIDTH, HEIGHT = 420, 270
"""Of one panel, in pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 46, 38
_MOST_TICKS = 6


@dataclass(frozen=True)
class _Line:
    """A curve: value by epoch, and how it is drawn."""

    label: str
    points: Mapping[int, float]
    colour: str
    width: float
    dash: str = ""


def draw_curves(run: Run, *, best: Run | None, baseline_db: float) -> str:
    """A trial's curves, one panel or two.

    Args:
        run: The trial.
        best: The study's best, for comparison.
        baseline_db: PSNR of the mean training image, in dB.
    """
    is_best = best is not None and best.row.number == run.row.number
    colour = BEST if is_best else COMPLETE
    if not is_best and run.row.state == "pruned":
        colour = PRUNED
    if run.row.outcome:
        colour = BAD
    mine = _Line(f"trial {run.row.number}", run.reports, colour, 2.5)
    other = best if best is not None and not is_best else None
    last = max([*run.reports, *(other.reports if other else ())], default=1)
    lines = [mine, _Line("baseline", {1: baseline_db, last: baseline_db}, GREY, 1.5, "5 4")]
    if other is not None:
        lines.append(_Line(f"best: trial {other.row.number}", other.reports, BEST, 1.5))
    panels = [_panel("validation PSNR, dB", lines, log=False)]
    if run.history:
        lines = [
            _Line("validation", _by_epoch(run, "val_mse"), colour, 2.5),
            _Line("training (dotted)", _by_epoch(run, "train_mse"), colour, 1.5, "2 3"),
        ]
        if other is not None and other.history:
            lines.append(_Line("the best's validation", _by_epoch(other, "val_mse"), BEST, 1.5))
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


def _by_epoch(run: Run, column: str) -> dict[int, float]:
    return dict(enumerate(run.history[column], 1))


def _panel(title: str, lines: Sequence[_Line], *, log: bool) -> str:
    values = [v for line in lines for v in line.points.values() if v > 0 or not log]
    last = max((e for line in lines for e in line.points), default=1)
    if not values:
        return _text(WIDTH / 2, HEIGHT / 2, "nothing to draw", "middle")
    xs = _Axis(1, max(last, 2), _LEFT, WIDTH - _RIGHT, False)
    room = (max(values) - min(values)) * 0.05 or 0.5
    low, high = min(values) - room, max(values) + room
    if log:
        low, high = min(values) / 1.08, max(values) * 1.08
    ys = _Axis(low, high, HEIGHT - _BOTTOM, _TOP, log)
    parts = [_text(_LEFT, 16, title, weight="600")]
    for tick in ys.ticks():
        y = ys.at(tick)
        parts.append(
            f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="{GREY}" stroke-opacity=".25"/>'
        )
        parts.append(_text(_LEFT - 7, y + 4, f"{tick:g}", "end"))
    parts += [
        _text(xs.at(t), HEIGHT - _BOTTOM + 18, f"{t:g}", "middle")
        for t in xs.ticks()
        if t == int(t) and t <= last
    ]
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4, "epoch", "middle"))
    x = float(_LEFT)
    for line in lines:
        parts.append(_text(x, 34, line.label, colour=line.colour))
        x += 7.0 * len(line.label) + 14
    parts += [_drawn(line, xs, ys, log=log) for line in reversed(lines)]
    return "".join(parts)


def _drawn(line: _Line, xs: _Axis, ys: _Axis, *, log: bool) -> str:
    points = [(xs.at(e), ys.at(v)) for e, v in sorted(line.points.items()) if v > 0 or not log]
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
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        """Where a value stands, in pixels."""
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within, a handful."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1,)):
                ticks = [float(f"{s}e{d}") for d in decades for s in steps]
                within = [t for t in ticks if self.low <= t <= self.high]
                if len(within) <= _MOST_TICKS:
                    break
            if len(within) >= 2 or self.high / self.low > 10:
                return within[:: math.ceil(len(within) / _MOST_TICKS)]
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / _MOST_TICKS))
        step = next(s * power for s in (1, 2, 5, 10) if span / (s * power) <= _MOST_TICKS)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
