"""torch's optimizers by the names of a study file, in their fastest form for the device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer, RMSprop

from searchae.spec import TrainParams

_FUSED = frozenset({"cpu", "cuda"})


def optimizer(
    params: TrainParams, weights: Iterable[nn.Parameter], *, device: torch.device
) -> Optimizer:
    """The optimizer of a trial; ``weights`` lie on ``device``.

    Weight decay is the L2 term inside the optimizer, not the decoupled one. Momentum goes to
    sgd and rmsprop. All else is torch's default.
    """
    fused = device.type in _FUSED
    if params.optimizer == "adam":
        return Adam(weights, lr=params.learning_rate, weight_decay=params.weight_decay, fused=fused)
    if params.optimizer == "sgd":
        return SGD(
            weights,
            lr=params.learning_rate,
            momentum=params.momentum,
            weight_decay=params.weight_decay,
            fused=fused,
        )
    return RMSprop(
        weights,
        lr=params.learning_rate,
        momentum=params.momentum,
        weight_decay=params.weight_decay,
        foreach=True,  # torch has no fused one
    )
