"""Tick positions of axes, for plotly figures and for SVG drawings."""

from __future__ import annotations

import math
from typing import Any

MAX_TICKS = 5


def linear_ticks(low: float, high: float, *, at_most: int = MAX_TICKS) -> list[float]:
    """Returns the multiples of 1, 2 or 5 times a power of ten within a range.

    Args:
        low: Start of the range.
        high: End of the range, above ``low``.
        at_most: The range is divided into at most this many steps.
    """
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / at_most))
    step = next(s * power for s in (1, 2, 5, 10) if span / (s * power) <= at_most)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float, *, at_most: int = MAX_TICKS) -> list[float]:
    """Returns round numbers for the ticks of a logarithmic axis.

    Args:
        low: Start of the range, above 0.
        high: End of the range, not below ``low``.
        at_most: Ticks, at most.

    Returns:
        Multiples of powers of ten; linear ticks where the range has fewer than three of these;
        only ``low`` if the range is too narrow for labels that differ.
    """
    if high < low * 1.0001:
        return [low]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for multiples in (range(1, 10), (1, 2, 5), (1,)):
        ticks = [float(f"{m}e{d}") for d in decades for m in multiples]
        inside = [t for t in ticks if low <= t <= high]
        if len(inside) <= at_most:
            break
    if len(inside) < 3 and high / low <= 10:
        return max(inside, linear_ticks(low, high, at_most=at_most), key=len)
    return inside[:: math.ceil(len(inside) / at_most)]


def log_axis(low: float, high: float) -> dict[str, Any]:
    """Returns plotly's settings for a logarithmic axis with ticks that are written as numbers.

    Args:
        low: Smallest value, above 0.
        high: Largest value.
    """
    ticks = log_ticks(low, high)
    margin = 0.04 * max(math.log10(high / low), 0.1)
    return {
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{t:g}" for t in ticks],
        "range": [math.log10(low) - margin, math.log10(high) + margin],
    }


def epoch_axis(last: int) -> dict[str, Any]:
    """Returns plotly's settings for an axis of the epochs from 1 to ``last``."""
    margin = 0.02 * last + 0.1
    return {"range": [1 - margin, last + margin], **({"dtick": 1} if last <= 10 else {})}
