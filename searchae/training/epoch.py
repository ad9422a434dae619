"""The result of one epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch of training and the validation after it.

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
    """

    epoch: int
    train_mse: float
    val_mse: float
    psnr_db: float
    psnr_of_mse_db: float
    sparsity: float
    seconds: float
