"""What one epoch came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochResult:
    """One epoch of training and its validation.

    Attributes:
        epoch: Counted from 1.
        train_mse: Mean squared error over the epoch's batches, on the [0, 1] scale, taken while
            the weights changed and without clamping the reconstructions.
        val_mse: Mean squared error on the validation split, on the [0, 1] scale.
        psnr_db: PSNR of each validation image with peak 1, averaged over the images, in dB.
        psnr_of_mse_db: PSNR of ``val_mse``, in dB.
        sparsity: Share of validation latents (or of weights) below 1e-3 in magnitude.
        seconds: Wall clock of training and validation.
    """

    epoch: int
    train_mse: float
    val_mse: float
    psnr_db: float
    psnr_of_mse_db: float
    sparsity: float
    seconds: float
