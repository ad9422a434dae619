"""The learning rate of each epoch.

It is constant within an epoch and follows from the study file and the PSNRs so far alone, so that a
resumed training goes on as an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from searchae.config import TrainParams
from searchae.training.early_stopping import Plateau


def learning_rate(params: TrainParams, epoch: int, psnrs_db: Sequence[float]) -> float:
    """Returns an epoch's learning rate.

    ``cosine`` is I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm
    restarts", ICLR 2017, without restarts, from the end of the warm-up to the last epoch. All are
    those of ``torch.optim.lr_scheduler`` for one step of it an epoch.

    Args:
        params: How the net is trained.
        epoch: The epoch's number, from 1.
        psnrs_db: Validation PSNR of each epoch before it, in dB, without those before
            ``noise_from_epoch``.
    """
    warmup = params.warmup_epochs
    if epoch <= warmup:
        return params.learning_rate * epoch / (warmup + 1)
    done = epoch - 1 - warmup  # epochs since the warm-up
    match params.schedule:
        case "constant":
            factor = 1.0
        case "cosine":
            factor = (1 + math.cos(math.pi * done / max(params.epochs - warmup, 1))) / 2
        case "step":
            factor = params.decay_factor ** (done // params.decay_epochs)
        case "plateau":
            factor = params.decay_factor ** _plateaus(params, psnrs_db)
    return params.learning_rate * factor


def _plateaus(params: TrainParams, psnrs_db: Sequence[float]) -> int:
    """Returns how often the PSNR has not improved for ``decay_epochs`` epochs."""
    count, rule = 0, Plateau(params.decay_epochs, params.min_delta_db)
    for psnr_db in psnrs_db:
        rule = rule.after(psnr_db)
        if rule.reached:
            count, rule = count + 1, rule.counted_anew()
    return count
