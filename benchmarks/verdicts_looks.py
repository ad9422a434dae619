"""How far looks at a growing sample lower the coverage of an interval, and what mending costs.

The plainest case: independent normal differences, one variance, values added until the 95%
interval's half-width is at most 1. The coverage depends on the noise alone. Each way to correct is
run at nine levels of the noise; the lowest coverage counts (Starr 1966, Annals of Mathematical
Statistics 37, 36-50).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

from searchae.compare.matched_design import FIRST_DEGREES, GROWTH
from searchae.compare.matched_statistics import CONFIDENCE_LEVEL, SEQUENTIAL_SHARE

Floats = npt.NDArray[np.float64]
Shares = Callable[[int], float]
"""The part of the 5% that look number n = 0, 1, ... uses."""

NOISE = (0.8, 1.0, 1.25, 1.5, 1.66, 1.92, 2.2, 2.6, 3.0)
INCREASING = (0.05, 0.1, 0.2, 0.3, 0.35)
MOST_VALUES = 4000


def _quantiles(share: float, values: Floats) -> Floats:
    """Returns the half-widths of intervals per unit of the standard deviation."""
    found: Floats = -special.stdtrit(values - 1, (1 - CONFIDENCE_LEVEL) * share / 2)
    return found / np.sqrt(values)


def run(noise: float, shares: Shares, *, largest: bool, runs: int) -> tuple[float, float]:
    """Returns the coverage and the mean number of values at the end.

    Args:
        noise: Standard deviation of the values.
        shares: The part of the 5% that each look uses.
        largest: Whether the largest variance of all looks counts, not the newest.
        runs: Number of samples.
    """
    rng = np.random.default_rng(19)
    values = np.full(runs, FIRST_DEGREES + 1.0)
    squares = noise**2 * rng.chisquare(values - 1)
    variance, covered = np.zeros(runs), np.zeros(runs)
    going = np.ones(runs, dtype=bool)
    table = np.arange(2.0, MOST_VALUES)
    look = 0
    while going.any():
        new = squares / (values - 1)
        variance = np.where(going, np.maximum(variance, new) if largest else new, variance)
        half = _quantiles(shares(look), values) * np.sqrt(variance)
        ends = going & (half <= 1)
        covered[ends] = 2 * special.ndtr(half[ends] * np.sqrt(values[ends]) / noise) - 1
        going &= ~ends
        enough = np.searchsorted(-_quantiles(shares(look), table), -1 / np.sqrt(variance)) + 2
        more = np.maximum(np.minimum(enough, np.ceil(GROWTH * values)), values + 1) - values
        squares = np.where(going, squares + noise**2 * rng.chisquare(more), squares)
        values = np.where(going, values + more, values)
        look += 1
    return float(covered.mean()), float(values.mean())


def table(runs: int) -> str:
    """Returns the comparison of the corrections as a Markdown table."""
    rules: dict[str, tuple[Shares, bool]] = {
        "none": (lambda _: 1.0, False),
        f"{SEQUENTIAL_SHARE:g} of the 5% (the product's)": (lambda _: SEQUENTIAL_SHARE, False),
        "the largest variance of all looks, 0.8 of the 5%": (lambda _: 0.8, True),
        "the 5% divided between the looks (5, 10, 20, 30, 35%)": (
            lambda look: INCREASING[min(look, len(INCREASING) - 1)],
            False,
        ),
    }
    lines = [
        "| correction | lowest coverage | values needed at noise 1 | 1.5 | 1.92 | 3 |",
        "|---|---|---|---|---|---|",
    ]
    for name, (shares, largest) in rules.items():
        found = {n: run(n, shares, largest=largest, runs=runs) for n in NOISE}
        sizes = " | ".join(f"{found[n][1]:.1f}" for n in (1.0, 1.5, 1.92, 3.0))
        lines.append(f"| {name} | {min(c for c, _ in found.values()):.1%} | {sizes} |")
    return "\n".join(lines)
