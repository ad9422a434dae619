"""Detection of trainings that have diverged: a loss, a PSNR or a weight is NaN or infinite."""

from __future__ import annotations

import math

import torch
from torch import nn

from searchae.config import TrainParams
from searchae.errors import DivergedError
from searchae.training.epoch import EpochResult


def check_finite(model: nn.Module, result: EpochResult, params: TrainParams) -> None:
    """Checks an epoch's result and the model's weights and buffers.

    Args:
        model: After the epoch.
        result: The epoch's result.
        params: How it is trained, for the message.

    Raises:
        DivergedError: One of them is NaN or infinite.
    """
    for name in ("train_mse", "psnr_db"):
        value = getattr(result, name)
        if not math.isfinite(value):
            raise diverged(params, f"{name} is {value} after epoch {result.epoch}")
    # An infinite weight does not always show in the loss: a ReLU can hide it.
    tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
    # A finite sum proves all its terms finite, and takes a fraction of the time.
    if torch.stack([t.sum() for t in tensors]).isfinite().all():
        return
    if not torch.stack([t.isfinite().all() for t in tensors]).all():
        raise diverged(params, f"a weight is not finite after epoch {result.epoch}")


def diverged(params: TrainParams, what: str) -> DivergedError:
    """Makes the error for a diverged training, with what to change.

    Args:
        params: How it was trained.
        what: What is not finite, and where.
    """
    return DivergedError(
        f"training diverged: {what} (learning_rate = {params.learning_rate}, "
        f"optimizer = {params.optimizer}): lower the learning rate, or clip"
    )
