"""Early stopping: ends a training whose validation PSNR no longer improves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

LEARNED_DB = 1.0
"""How far above the mean training image a net's PSNR must be, for it to have learned anything."""


@dataclass(frozen=True)
class Plateau:
    """The early-stopping rule and its state after some epochs.

    Attributes:
        patience: Stop after this many epochs without an improvement; 0 never stops.
        min_delta_db: Smallest improvement over ``best_db``, in dB; if 0, any higher PSNR is one.
        counts_from_db: PSNR in dB below which epochs do not count until it has been reached once: a
            net may give the mean image for long before it begins to learn.
        best_db: PSNR at the last improvement. A smaller rise does not change it, so that slow
            rises count as an improvement once they add up.
        stale_epochs: Epochs since the last improvement.
        has_learned: Whether ``counts_from_db`` has been reached.
    """

    patience: int
    min_delta_db: float
    counts_from_db: float = -math.inf
    best_db: float = -math.inf
    stale_epochs: int = 0
    has_learned: bool = False

    @property
    def reached(self) -> bool:
        """Whether to stop."""
        return 0 < self.patience <= self.stale_epochs

    def after(self, psnr_db: float) -> Plateau:
        """Returns the state after one more epoch; NaN is no improvement."""
        has_learned = self.has_learned or not psnr_db < self.counts_from_db
        if psnr_db > self.best_db and psnr_db >= self.best_db + self.min_delta_db:
            return replace(self, best_db=psnr_db, stale_epochs=0, has_learned=has_learned)
        stale_epochs = self.stale_epochs + has_learned
        return replace(self, stale_epochs=stale_epochs, has_learned=has_learned)

    def counted_anew(self) -> Plateau:
        """Returns the state with no epoch counted as stale; the best PSNR stays."""
        return replace(self, stale_epochs=0)

    def after_all(self, psnrs_db: Iterable[float]) -> Plateau:
        """Returns the state after several more epochs, in order."""
        plateau = self
        for psnr_db in psnrs_db:
            plateau = plateau.after(psnr_db)
        return plateau
