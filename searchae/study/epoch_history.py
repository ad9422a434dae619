"""The training history of a trial, stored with the trial when its checkpoints are removed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from searchae.training import EpochResult

HISTORY = "searchae:history"
"""User attribute of a trial that was completed or pruned: dict, see ``compact_history``."""
HISTORY_COLUMNS = ("train_mse", "val_mse", "psnr_of_mse_db", "sparsity", "seconds")
"""Stored fields of ``EpochResult``. ``psnr_db`` is not among them: the trial reports it."""


def compact_history(
    history: Iterable[EpochResult], *, within_s: float = 0.0
) -> dict[str, list[float] | float]:
    """Returns a history as columns, rounded to six significant digits.

    Args:
        history: Every epoch from the first.
        within_s: Seconds in an epoch that was begun after them.

    Returns:
        Each of ``HISTORY_COLUMNS`` -> one value per epoch; ``within_s`` if it is not 0.
    """
    rows = list(history)
    found: dict[str, list[float] | float] = {
        name: [_rounded(getattr(r, name)) for r in rows] for name in HISTORY_COLUMNS
    }
    return found | ({"within_s": _rounded(within_s)} if within_s else {})


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def training_seconds(attributes: Mapping[str, Any]) -> float | None:
    """Returns how long a trial was trained, in seconds; None without a valid history."""
    stored = attributes.get(HISTORY)
    within = stored.get("within_s", 0.0) if isinstance(stored, dict) else 0.0
    columns = history_columns(attributes)
    if not columns and not within:
        return None
    found = sum(columns.get("seconds", ())) + (within if _are_finite_numbers([within]) else 0.0)
    return found or None


def history_columns(attributes: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Returns the history among a trial's user attributes.

    Returns:
        Each of ``HISTORY_COLUMNS`` -> one value per epoch; empty if there is no valid history.
    """
    stored = attributes.get(HISTORY)
    if not isinstance(stored, dict) or any(
        not _are_finite_numbers(stored.get(c)) for c in HISTORY_COLUMNS
    ):
        return {}
    lengths = {len(stored[c]) for c in HISTORY_COLUMNS}
    if len(lengths) != 1 or 0 in lengths:
        return {}
    return {c: tuple(float(v) for v in stored[c]) for c in HISTORY_COLUMNS}


def _are_finite_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int | float) and math.isfinite(v) for v in values
    )
