"""What a worker does when other workers on its GPU leave too little memory for a trial."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import torch

from searchae.training import held_by_others

CROWDED_BYTES = 256 << 20
"""Memory held by other processes above which an out-of-memory error is put down to them."""
LONGEST_WAIT_S = 600.0
"""How long in all a worker waits for other workers' memory before it treats trials as too large."""
FIRST_WAIT_S, LONGEST_ROUND_S = 4.0, 60.0
"""The first wait; each further one is as long as all before, up to the second number."""


class CrowdedError(Exception):
    """Other processes hold the GPU's memory; the trial has been put back."""


@dataclass
class SharedGpu:
    """Decides whether a worker leaves its GPU or waits for memory.

    Args:
        policy: ``leave`` or ``stay``; empty if the GPU is not shared. See ``WorkerOptions.shares``.
        device: The device.
    """

    policy: str
    device: torch.device
    waited_s: float = 0.0

    def is_crowded(self) -> bool:
        """Returns whether an out-of-memory error is due to other workers, and waiting may help."""
        may_wait = bool(self.policy) and self.waited_s < LONGEST_WAIT_S
        return may_wait and held_by_others(self.device) > CROWDED_BYTES

    def next_wait_s(self) -> float | None:
        """Returns how many seconds to wait before trying again; None to leave the GPU for good."""
        if self.policy == "leave":
            return None
        wait_s = min(LONGEST_ROUND_S, max(FIRST_WAIT_S, self.waited_s))
        self.waited_s += wait_s
        return wait_s

    def release(self) -> None:
        """Gives memory that no tensor uses back to the other processes on the GPU."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
