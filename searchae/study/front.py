"""The Pareto front of a study with several objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from searchae.config import OBJECTIVES

if TYPE_CHECKING:
    from searchae.study.summary import TrialRow


def front_of(rows: Sequence[TrialRow]) -> tuple[TrialRow, ...]:
    """Returns the trials with a result that no other one dominates.

    A trial dominates another if it is at least as good in every objective and better in one. Of
    trials that are equal in all of them, all are returned.

    Args:
        rows: Trials of one study.

    Returns:
        The highest PSNR first, then the lowest number; none of a study with one objective.
    """
    found: list[tuple[tuple[float, ...], TrialRow]] = []
    scored = [(_scores(row), row) for row in rows if row.has_result and row.values]
    # In this order no trial is dominated by a later one.
    for scores, row in sorted(scored, key=lambda s: (*(-x for x in s[0]), s[1].number)):
        if not any(_dominates(other, scores) for other, _ in found):
            found.append((scores, row))
    return tuple(row for _, row in found)


def _scores(row: TrialRow) -> tuple[float, ...]:
    return tuple(OBJECTIVES[name].score(value) for name, value in row.values.items())


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
