"""The result of one epoch, and how far an epoch has been trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from searchae.training.draws import EpochDraws
from searchae.training.generators import restore_torch_generators, torch_generators


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch of training and the validation after it, or of a part of an epoch.

    Attributes:
        epoch: The epoch's number, from 1.
        train_mse: Mean squared error over the epoch's batches, for values in [0, 1]. Each batch is
            measured before its update, and reconstructions are not clamped.
        val_mse: Mean squared error on the validation images, for values in [0, 1].
        psnr_db: PSNR of each validation image, averaged over the images, in dB.
        psnr_of_mse_db: PSNR of ``val_mse``, in dB.
        sparsity: Share of the validation images' latents (or of the weights) below 1e-3 in
            magnitude.
        seconds: Wall-clock time of training and validation.
        share: How much of the epoch has been trained. Below 1, the values may be those of a
            sample of the validation images, which is the same for all trials of a study.
    """

    epoch: int
    train_mse: float
    val_mse: float
    psnr_db: float
    psnr_of_mse_db: float
    sparsity: float
    seconds: float
    share: float = 1.0

    @property
    def epochs(self) -> float:
        """How many epochs have been trained."""
        return self.epoch - 1 + self.share


@dataclass
class EpochProgress:
    """How far an epoch has been trained, and what its remaining steps need.

    Attributes:
        draws: Draws the random numbers of its steps.
        total: Sum over the images of the mean squared error, a float32 scalar on the device.
        steps: Steps so far.
        images: Images so far.
        seconds: Wall-clock time so far.
        results: What was measured within the epoch so far.
        generators: States of torch's own generators after the last step, for nets whose modules
            draw from them.
    """

    draws: EpochDraws
    total: Tensor
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    results: list[EpochResult] = field(default_factory=list)
    generators: dict[str, Tensor] = field(default_factory=dict)

    def keep_generators(self, device: torch.device) -> None:
        """Keeps the states of torch's own generators until ``restore_generators``."""
        self.generators = torch_generators(device)

    def restore_generators(self, device: torch.device) -> None:
        """Sets torch's own generators to the states that were kept."""
        restore_torch_generators(self.generators, device)

    def state(self) -> dict[str, Any]:
        """Returns all of it as tensors on the CPU and plain values."""
        return {
            "steps": self.steps,
            "images": self.images,
            "total": self.total.detach().to("cpu", copy=True),
            "seconds": self.seconds,
            "results": [asdict(result) for result in self.results],
            "draws": self.draws.states(),
            "generators": dict(self.generators),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what ``state`` returned.

        Raises:
            ValueError: It does not hold what a state holds.
            TypeError: The same.
            LookupError: The same.
        """
        results = [EpochResult(**row) for row in state["results"]]
        values = [value for result in results for value in asdict(result).values()]
        total = state["total"].to(self.total)
        if total.shape != () or not all(map(math.isfinite, [*values, state["seconds"], total])):
            raise ValueError("the state within its epoch holds something else than finite numbers")
        self.steps, self.images = int(state["steps"]), int(state["images"])
        self.seconds, self.total, self.results = float(state["seconds"]), total, results
        self.draws.restore(state["draws"])
        self.generators = dict(state["generators"])
