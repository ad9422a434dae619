"""The rule that stops a training whose validation PSNR no longer rises."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Plateau:
    """Where a training stands with the rule.

    Attributes:
        patience: Epochs without an improvement that are one too many; 0 never stops.
        min_delta_db: An improvement exceeds the last one by at least this, in dB; by anything
            at all if 0.
        best_db: PSNR at the last improvement. Smaller rises leave it, so that a slow rise
            counts as soon as it adds up.
        stale_epochs: Epochs since then.
    """

    patience: int
    min_delta_db: float
    best_db: float = -math.inf
    stale_epochs: int = 0

    @property
    def reached(self) -> bool:
        """Whether to stop."""
        return 0 < self.patience <= self.stale_epochs

    def after(self, psnr_db: float) -> Plateau:
        """The rule's state after one more epoch; a NaN is no improvement."""
        if psnr_db > self.best_db and psnr_db >= self.best_db + self.min_delta_db:
            return replace(self, best_db=psnr_db, stale_epochs=0)
        return replace(self, stale_epochs=self.stale_epochs + 1)

    def after_all(self, psnrs_db: Iterable[float]) -> Plateau:
        """The rule's state after several more epochs, in order."""
        plateau = self
        for psnr_db in psnrs_db:
            plateau = plateau.after(psnr_db)
        return plateau
