"""A trial's epochs, kept with the trial: what its checkpoints knew and the database did not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from searchae.training import EpochResult

HISTORY = "searchae:history"
"""User attribute of a trial that trained to its end or was pruned: see ``compact``."""
HISTORY_COLUMNS = ("train_mse", "val_mse", "psnr_of_mse_db", "sparsity", "seconds")
"""Of an ``EpochResult``; ``psnr_db`` is what the trial reports anyway."""


def compact_history(history: Iterable[EpochResult]) -> dict[str, list[float]]:
    """Epochs from the first on as columns, six digits each.

    Returns:
        ``COLUMNS`` -> one value an epoch.
    """
    rows = list(history)
    return {name: [float(f"{getattr(r, name):.6g}") for r in rows] for name in HISTORY_COLUMNS}


def history_columns(attributes: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """The history among a trial's user attributes.

    Returns:
        ``COLUMNS`` -> one value an epoch; empty where there is none, or none that can be read.
    """
    stored = attributes.get(HISTORY)
    if not isinstance(stored, dict) or any(not _numbers(stored.get(c)) for c in HISTORY_COLUMNS):
        return {}
    lengths = {len(stored[c]) for c in HISTORY_COLUMNS}
    if len(lengths) != 1 or 0 in lengths:
        return {}
    return {c: tuple(float(v) for v in stored[c]) for c in HISTORY_COLUMNS}


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int | float) and math.isfinite(v) for v in values
    )
