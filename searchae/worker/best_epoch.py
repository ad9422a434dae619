"""The best epoch of a training so far, kept with its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from searchae.training import CheckpointError, EpochResult

_KEY = "best"


@dataclass
class BestEpoch:
    """The epoch with the best validation PSNR so far; the first of equal ones.

    Attributes:
        epoch: Its number, from 1; 0 before the first.
        psnr_db: Its validation PSNR in dB.
        weights: The weights after it, on the CPU.
    """

    epoch: int = 0
    psnr_db: float = float("-inf")
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def update(self, state: Mapping[str, Any], result: EpochResult) -> dict[str, Any]:
        """Takes an epoch into account.

        Args:
            state: The trainer's state after it.
            result: Its result.

        Returns:
            The state with the best epoch added, for a checkpoint.
        """
        if result.psnr_db > self.psnr_db:
            self.epoch, self.psnr_db, self.weights = result.epoch, result.psnr_db, state["model"]
        best = {"epoch": self.epoch, "psnr_db": self.psnr_db, "weights": dict(self.weights)}
        return {**state, _KEY: best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes the best epoch from the state of a checkpoint.

        Raises:
            CheckpointError: The state has none.
        """
        try:
            best = state[_KEY]
            epoch, psnr_db, weights = int(best["epoch"]), best["psnr_db"], best["weights"]
            fits = state["model"].keys() == weights.keys() and all(
                w.shape == weights[name].shape for name, w in state["model"].items()
            )
        except (AttributeError, LookupError, TypeError, ValueError) as e:
            raise CheckpointError(f"checkpoint: has no best epoch: {e}") from e
        if not (fits and 0 < epoch <= len(state["history"]) and isinstance(psnr_db, float)):
            raise CheckpointError("checkpoint: its best epoch is of another training")
        self.epoch, self.psnr_db, self.weights = epoch, psnr_db, weights
