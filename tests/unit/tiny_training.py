"""A training that takes milliseconds, for the tests of ``training``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from searchae.config.schema import ModelParams, TrainParams, TrialParams
from searchae.training.precision import Precision
from searchae.training.trainer import Trainer

CPU = torch.device("cpu")


def smooth_images(count: int, *, channels: int = 1, side: int = 8, seed: int = 0) -> Tensor:
    """Random images that a small net can learn something about; uint8."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 2, 2, generator=g)
    images = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=True)
    return images.mul(255).round().to(torch.uint8)


TRAIN, VALIDATION = smooth_images(90), smooth_images(20, seed=1)


def params(model: dict[str, Any] | None = None, **train: Any) -> TrialParams:
    """A tiny net and four short epochs, unless told otherwise."""
    return TrialParams(
        ModelParams(**{"channels": (4, 8), "latent_dim": 4, **(model or {})}),
        TrainParams(**{"epochs": 4, "batch_size": 16, "learning_rate": 1e-2, **train}),
    )


def trainer(
    trial: TrialParams,
    *,
    seed: int = 3,
    stop: Callable[[], bool] | None = None,
    train: Tensor = TRAIN,
    validation: Tensor = VALIDATION,
    precision: Precision = "fp32",
) -> Trainer:
    return Trainer(
        trial,
        train=train,
        validation=validation,
        seed=seed,
        device=CPU,
        precision=precision,
        stop=stop,
    )
